import { Module } from '@nestjs/common'
import { SessionMonitor } from '../auth/credentials/session-monitor.ts'
import { GraphQLHttpModule } from '../http/graphql.module.ts'
import { FanOut } from './fan-out.ts'
import { GraphQLProtocol } from './graphql-protocol.ts'
import { LiveMetrics } from './live-metrics.ts'
import { SubscriptionSocket } from './subscription-socket.ts'

@Module({
  imports: [GraphQLHttpModule],
  providers: [SubscriptionSocket, GraphQLProtocol, FanOut, SessionMonitor, LiveMetrics],
})
export class LiveModule {}
