import { Module } from '@nestjs/common'
import { AuthModule } from '../auth/auth.module.ts'
import { Config } from '../config/config.ts'
import { EventsModule } from '../events/events.module.ts'
import { GitHubModule } from '../github/github.module.ts'
import { PubSubModule } from '../pubsub/pubsub.module.ts'
import { TemplateCatalog } from '../templates/template-catalog.ts'
import { ContentsCleanup } from './contents/contents-cleanup.ts'
import { DeploymentService } from './deployment.service.ts'
import { DeploymentStore } from './deployment-store.ts'
import { DeploymentsResolver } from './deployments.resolver.ts'
import { DeploymentMetrics } from './runner/deployment-metrics.ts'
import { DeploymentRunner } from './runner/deployment-runner.ts'
import { LeaseStore } from './runner/lease-store.ts'
import { RunnerSignals } from './runner/runner-signals.ts'

@Module({
  imports: [AuthModule, EventsModule, GitHubModule, PubSubModule],
  providers: [
    DeploymentsResolver,
    DeploymentService,
    {
      provide: TemplateCatalog,
      inject: [Config],
      useFactory: (config: Config) => TemplateCatalog.load(config.templatesDir),
    },
    DeploymentStore,
    LeaseStore,
    RunnerSignals,
    DeploymentRunner,
    DeploymentMetrics,
    ContentsCleanup,
  ],
  exports: [DeploymentRunner],
})
export class DeploymentsModule {}
