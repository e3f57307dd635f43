import { Controller, Get, Header, Res, UseFilters, UseGuards } from '@nestjs/common'
import type { Response } from 'express'
import { AllOrganizationsGuard, AuthGuard } from '../auth/auth.guard.ts'
import { AuthErrorsFilter } from '../auth/http-authenticator.ts'
import { Metrics } from '../metrics/metrics.ts'

/** For Prometheus. The figures cover all organizations. */
@UseGuards(AuthGuard, AllOrganizationsGuard)
@UseFilters(AuthErrorsFilter)
@Controller('metrics')
export class MetricsController {
  constructor(private readonly metrics: Metrics) {}

  @Get()
  @Header('Cache-Control', 'no-store')
  async metricsText(@Res() response: Response): Promise<void> {
    response.type(this.metrics.registry.contentType).send(await this.metrics.registry.metrics())
  }
}
