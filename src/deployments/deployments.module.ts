import { Module } from '@nestjs/common'
import { APP_FILTER } from '@nestjs/core'
import { Config } from '../config.ts'
import { ClientErrorFilter } from '../graphql/client-error.filter.ts'
import { TemplateCatalog } from './contents/template-catalog.ts'
import { DeploymentService } from './deployment.service.ts'
import { DeploymentMetrics } from './deployment-metrics.ts'
import { DeploymentRunner } from './deployment-runner.ts'
import { DeploymentStore } from './deployment-store.ts'
import { DeploymentsResolver } from './deployments.resolver.ts'
import { LeaseStore } from './lease-store.ts'

@Module({
  providers: [
    { provide: APP_FILTER, useClass: ClientErrorFilter },
    DeploymentsResolver,
    DeploymentService,
    {
      provide: TemplateCatalog,
      inject: [Config],
      useFactory: (config: Config) => TemplateCatalog.load(config.templatesDir),
    },
    DeploymentStore,
    LeaseStore,
    DeploymentRunner,
    DeploymentMetrics,
  ],
  exports: [DeploymentRunner],
})
export class DeploymentsModule {}
