import { Module } from '@nestjs/common'
import { Config } from '../config.ts'
import { TemplateCatalog } from './contents/template-catalog.ts'
import { ContentsSweep } from './contents-sweep.ts'
import { DeploymentService } from './deployment.service.ts'
import { DeploymentMetrics } from './deployment-metrics.ts'
import { DeploymentRunner } from './deployment-runner.ts'
import { DeploymentStore } from './deployment-store.ts'
import { DeploymentsResolver } from './deployments.resolver.ts'
import { LeaseStore } from './lease-store.ts'
import { RunnerSignals } from './runner-signals.ts'

@Module({
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
    ContentsSweep,
  ],
  exports: [DeploymentRunner],
})
export class DeploymentsModule {}
