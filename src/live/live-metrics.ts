import { Injectable } from '@nestjs/common'
import { Counter, Gauge, Histogram } from 'prom-client'
import { Metrics } from '../metrics/metrics.ts'

/** Metrics of sockets, subscriptions and deliveries. */
@Injectable()
export class LiveMetrics {
  readonly sockets: Gauge
  readonly subscribers: Gauge
  readonly sharedSubscriptions: Gauge
  readonly unsentBytes: Gauge
  readonly executions: Counter
  readonly deliveries: Counter
  readonly sentBytes: Counter
  readonly lagging: Counter
  readonly slowCloses: Counter
  readonly refusals: Counter<'reason'>
  readonly commitToSocketSeconds: Histogram

  constructor(metrics: Metrics) {
    const registers = [metrics.registry]
    const gauge = (name: string, help: string) => new Gauge({ name: `shipcast_${name}`, help, registers })
    const counter = (name: string, help: string) => new Counter({ name: `shipcast_${name}`, help, registers })
    this.sockets = gauge('sockets', 'Open sockets.')
    this.subscribers = gauge('members', 'Active subscriptions.')
    this.sharedSubscriptions = gauge('groups', 'Distinct subscriptions: each executes an event once.')
    this.unsentBytes = gauge(
      'unsent_bytes',
      'Bytes for sockets that the operating system has not accepted yet.',
    )
    this.executions = counter(
      'executions_total',
      'Events executed and encoded, once per distinct subscription.',
    )
    this.deliveries = counter('deliveries_total', 'Events written to a socket.')
    this.sentBytes = counter('sent_bytes_total', 'Bytes of events written to sockets.')
    this.lagging = counter(
      'lagging_total',
      'Times that a subscription fell behind because its socket was full.',
    )
    this.slowCloses = counter('slow_closes_total', 'Sockets closed because their client read too slowly.')
    this.refusals = new Counter({
      name: 'shipcast_refusals_total',
      help: 'Sockets and subscriptions refused, by reason.',
      labelNames: ['reason'],
      registers,
    })
    this.commitToSocketSeconds = new Histogram({
      name: 'shipcast_commit_to_socket_seconds',
      help: "Time from an event's timestamp, by the database's clock, to its first write to a socket.",
      buckets: [0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5],
      registers,
    })
  }
}
