import { Module } from '@nestjs/common'
import { SessionMonitor } from '../auth/credentials/session-monitor.ts'
import { Config } from '../config/config.ts'
import { GraphQLHttpModule } from '../http/graphql.module.ts'
import { OriginGuard } from '../http/origin-guard.ts'
import { DocumentCache } from './document-cache.ts'
import { ExecutionScheduler } from './execution-scheduler.ts'
import { FanOut } from './fan-out.ts'
import { GraphQLProtocol } from './graphql-protocol.ts'
import { LiveMetrics } from './live-metrics.ts'
import { EncodedEventCache } from './shared-subscription.ts'
import { SocketClock, SubscriptionSocket } from './subscription-socket.ts'

@Module({
  imports: [GraphQLHttpModule],
  providers: [
    SubscriptionSocket,
    SocketClock,
    { provide: OriginGuard, inject: [Config], useFactory: (config: Config) => new OriginGuard(config) },
    GraphQLProtocol,
    DocumentCache,
    FanOut,
    EncodedEventCache,
    { provide: ExecutionScheduler, useFactory: () => new ExecutionScheduler() },
    SessionMonitor,
    LiveMetrics,
  ],
})
export class LiveModule {}
