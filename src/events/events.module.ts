import { Global, Module } from '@nestjs/common'
import { EventFeed } from './event-feed.ts'
import { EventLog } from './event-log.ts'

@Global()
@Module({ providers: [EventLog, EventFeed], exports: [EventLog, EventFeed] })
export class EventsModule {}
