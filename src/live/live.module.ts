import { Module } from '@nestjs/common'
import { AccessWatch } from '../auth/credentials/access-watch.ts'
import { GraphQLHttpModule } from '../http/graphql.module.ts'
import { FanOut } from './fan-out.ts'
import { GraphQLProtocol } from './graphql-protocol.ts'
import { LiveMetrics } from './live-metrics.ts'
import { SubscriptionSocket } from './subscription-socket.ts'

@Module({
  imports: [GraphQLHttpModule],
  providers: [SubscriptionSocket, GraphQLProtocol, FanOut, AccessWatch, LiveMetrics],
})
export class LiveModule {}
