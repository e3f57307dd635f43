import { Injectable } from '@nestjs/common'
import { Counter, Gauge, Histogram } from 'prom-client'
import { Metrics } from '../metrics/metrics.ts'

/** What the live side counts. Names and units as Prometheus has them. */
@Injectable()
export class LiveMetrics {
  readonly sockets: Gauge
  readonly members: Gauge
  readonly groups: Gauge
  readonly unsentBytes: Gauge
  readonly executions: Counter
  readonly deliveries: Counter
  readonly sentBytes: Counter
  readonly unshared: Counter
  readonly lagging: Counter
  readonly slowCloses: Counter
  readonly refusals: Counter<'reason'>
  readonly commitToSocketSeconds: Histogram

  constructor(metrics: Metrics) {
    const registers = [metrics.registry]
    const gauge = (name: string, help: string) => new Gauge({ name: `shipcast_${name}`, help, registers })
    const counter = (name: string, help: string) => new Counter({ name: `shipcast_${name}`, help, registers })
    this.sockets = gauge('sockets', 'Open sockets.')
    this.members = gauge('members', 'Subscriptions that share a group.')
    this.groups = gauge('groups', 'Distinct things that subscriptions ask for.')
    this.unsentBytes = gauge('unsent_bytes', 'Bytes for sockets that the operating system has not taken yet.')
    this.executions = counter('executions_total', 'Events executed and encoded, once per group.')
    this.deliveries = counter('deliveries_total', 'Events written to a socket.')
    this.sentBytes = counter('sent_bytes_total', 'Bytes of events written to sockets.')
    this.unshared = counter('unshared_subscriptions_total', 'Subscriptions that could not share a group.')
    this.lagging = counter('lagging_total', 'Times that a socket had to be waited for.')
    this.slowCloses = counter('slow_closes_total', 'Sockets closed because they took nothing for too long.')
    this.refusals = new Counter({
      name: 'shipcast_refusals_total',
      help: 'Sockets and subscriptions refused, by reason.',
      labelNames: ['reason'],
      registers,
    })
    this.commitToSocketSeconds = new Histogram({
      name: 'shipcast_commit_to_socket_seconds',
      help: 'From the time of an event, by the clock of the database, to its first write to a socket.',
      buckets: [0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5],
      registers,
    })
  }
}
