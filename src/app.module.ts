import { type DynamicModule, Module } from '@nestjs/common'
import { AuthModule } from './auth/auth.module.ts'
import { ConfigModule } from './config/config.module.ts'
import type { Config } from './config/config.ts'
import { DatabaseModule } from './database/database.module.ts'
import { DeploymentsModule } from './deployments/deployments.module.ts'
import { EventsModule } from './events/events.module.ts'
import { GitHubModule } from './github/github.module.ts'
import { HealthModule } from './health/health.module.ts'
import { GraphQLHttpModule } from './http/graphql.module.ts'
import { HttpModule } from './http/http.module.ts'
import { LiveModule } from './live/live.module.ts'
import { MetricsModule } from './metrics/metrics.module.ts'
import { PubSubModule } from './pubsub/pubsub.module.ts'

/** All modules, in the order in which an event travels. */
@Module({})
export class AppModule {
  static forRoot(config: Config): DynamicModule {
    return {
      module: AppModule,
      imports: [
        ConfigModule.forRoot(config),
        // A mutation arrives …
        HttpModule,
        GraphQLHttpModule,
        // … from an authorized subject …
        AuthModule,
        // … and becomes a deployment, which runs step by step …
        DeploymentsModule,
        // … on the forge …
        GitHubModule,
        // … each step committed together with its event …
        DatabaseModule.forRoot({
          url: config.databaseUrl,
          listenUrl: config.databaseListenUrl,
          dataDir: config.dataDir,
        }),
        EventsModule,
        // … of which every node is notified …
        PubSubModule,
        // … and which its subscribers receive.
        LiveModule,
        HealthModule,
        MetricsModule,
      ],
    }
  }
}
