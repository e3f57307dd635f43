import { Module } from '@nestjs/common'
import { AuthModule } from '../auth/auth.module.ts'
import { EventsModule } from '../events/events.module.ts'
import { GraphQLHttpModule } from '../http/graphql.module.ts'
import { HttpModule } from '../http/http.module.ts'
import { DocumentCache } from './document-cache.ts'
import { ExecutionScheduler } from './execution-scheduler.ts'
import { FanOut } from './fan-out.ts'
import { GraphQLProtocol } from './graphql-protocol.ts'
import { LiveMetrics } from './live-metrics.ts'
import { EncodedEventCache } from './shared-subscription.ts'
import { SocketClock, SubscriptionSocket } from './subscription-socket.ts'

@Module({
  imports: [AuthModule, EventsModule, GraphQLHttpModule, HttpModule],
  providers: [
    SubscriptionSocket,
    SocketClock,
    GraphQLProtocol,
    DocumentCache,
    FanOut,
    EncodedEventCache,
    { provide: ExecutionScheduler, useFactory: () => new ExecutionScheduler() },
    LiveMetrics,
  ],
})
export class LiveModule {}
