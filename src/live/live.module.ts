import { Module } from '@nestjs/common'
import { AuthModule } from '../auth/auth.module.ts'
import { EventsModule } from '../events/events.module.ts'
import { GraphQLHttpModule } from '../http/graphql.module.ts'
import { HttpModule } from '../http/http.module.ts'
import { FanOut } from './fan-out.ts'
import { GraphQLProtocol } from './graphql-protocol.ts'
import { LiveMetrics } from './live-metrics.ts'
import { SubscriptionSocket } from './subscription-socket.ts'

@Module({
  imports: [AuthModule, EventsModule, GraphQLHttpModule, HttpModule],
  providers: [SubscriptionSocket, GraphQLProtocol, FanOut, LiveMetrics],
})
export class LiveModule {}
