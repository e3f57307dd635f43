import { Global, Module } from '@nestjs/common'
import { EventFeed } from './event-feed.ts'
import { EventLog } from './event-log.ts'
import { EventMetrics } from './event-metrics.ts'

@Global()
@Module({ providers: [EventLog, EventFeed, EventMetrics], exports: [EventLog, EventFeed] })
export class EventsModule {}
