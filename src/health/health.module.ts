import { Module } from '@nestjs/common'
import { DeploymentsModule } from '../deployments/deployments.module.ts'
import { HealthController } from './health.controller.ts'

@Module({ imports: [DeploymentsModule], controllers: [HealthController] })
export class HealthModule {}
