import { Injectable } from '@nestjs/common'
import { Counter, Gauge, Histogram } from 'prom-client'
import { EventFeed } from '../../events/event-feed.ts'
import { Metrics } from '../../metrics/metrics.ts'

/** What is counted of deployments. Names and units as Prometheus has them. */
@Injectable()
export class DeploymentMetrics {
  readonly stepSeconds: Histogram<'step'>

  constructor({ registry }: Metrics, feed: EventFeed) {
    const registers = [registry]
    this.stepSeconds = new Histogram({
      name: 'shipcast_step_seconds',
      help: 'How long a step took on this node, until it was stored, by the step reached.',
      labelNames: ['step'],
      buckets: [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60],
      registers,
    })
    new Gauge({
      name: 'shipcast_active_deployments',
      help: 'Deployments that have not ended, of all nodes, by status.',
      labelNames: ['status'],
      registers,
      collect() {
        for (const [status, count] of feed.activeByStatus) this.set({ status }, count)
      },
    })
    const ended = new Counter({
      name: 'shipcast_ended_deployments_total',
      help: 'Deployments that ended, of all nodes, by status, since this node has started.',
      labelNames: ['status'],
      registers,
    })
    feed.onEvent(({ deployment: { status, finishedAt } }) => {
      if (finishedAt !== null) ended.inc({ status })
    })
  }
}
