import { Injectable } from '@nestjs/common'
import { Counter } from 'prom-client'
import { Metrics } from '../metrics/metrics.ts'
import { EventFeed } from './event-feed.ts'

/** How well notifications reach this node. */
@Injectable()
export class EventMetrics {
  constructor({ registry }: Metrics, feed: EventFeed) {
    new Counter({
      name: 'shipcast_gap_fills_total',
      help: 'Reads of the event log because a notification was missing or out of order.',
      registers: [registry],
      collect() {
        this.reset()
        this.inc(feed.gapFills)
      },
    })
    new Counter({
      name: 'shipcast_lost_hints_total',
      help: 'Polls of the event log that found events for which no notification arrived.',
      registers: [registry],
      collect() {
        this.reset()
        this.inc(feed.missedNotificationCount)
      },
    })
  }
}
