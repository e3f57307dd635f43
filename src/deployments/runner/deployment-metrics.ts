import { Injectable } from '@nestjs/common'
import { Counter, Gauge, Histogram } from 'prom-client'
import { EventFeed } from '../../events/event-feed.ts'
import { Metrics } from '../../metrics/metrics.ts'

/** Names and units follow Prometheus' conventions. */
@Injectable()
export class DeploymentMetrics {
  readonly stepSeconds: Histogram<'step'>

  constructor({ registry }: Metrics, feed: EventFeed) {
    const registers = [registry]
    this.stepSeconds = new Histogram({
      name: 'shipcast_step_seconds',
      help: 'Duration of steps on this node, including storing the result, by the step reached.',
      labelNames: ['step'],
      buckets: [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60],
      registers,
    })
    new Gauge({
      name: 'shipcast_active_deployments',
      help: 'Active deployments on all nodes, by status.',
      labelNames: ['status'],
      registers,
      collect() {
        for (const [status, count] of feed.activeByStatus) this.set({ status }, count)
      },
    })
    const ended = new Counter({
      name: 'shipcast_ended_deployments_total',
      help: 'Deployments on all nodes that ended since this node started, by status.',
      labelNames: ['status'],
      registers,
    })
    feed.onEvent(({ deployment: { status, finishedAt } }) => {
      if (finishedAt !== null) ended.inc({ status })
    })
  }
}
