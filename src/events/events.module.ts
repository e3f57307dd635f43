import { Module } from '@nestjs/common'
import { PubSubModule } from '../pubsub/pubsub.module.ts'
import { EventFeed } from './event-feed.ts'
import { EventLog } from './event-log.ts'
import { EventMetrics } from './event-metrics.ts'

@Module({
  imports: [PubSubModule],
  providers: [EventLog, EventFeed, EventMetrics],
  exports: [EventLog, EventFeed],
})
export class EventsModule {}
