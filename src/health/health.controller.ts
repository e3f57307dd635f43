import { Controller, Get, Res } from '@nestjs/common'
import type { Response } from 'express'
import { Database } from '../database/database.ts'
import { DeploymentRunner } from '../deployments/runner/deployment-runner.ts'

/** For whoever starts, stops and balances nodes. */
@Controller('health')
export class HealthController {
  constructor(
    private readonly database: Database,
    private readonly runner: DeploymentRunner,
  ) {}

  /** The process answers. Says nothing about what it depends on: restarting it would not mend that. */
  @Get('live')
  live(): { status: 'ok' } {
    return { status: 'ok' }
  }

  /** 200 when a deployment that is sent now would be accepted and run: the database answers, and so does the runner. */
  @Get('ready')
  async ready(@Res({ passthrough: true }) response: Response): Promise<{ status: string; checks: object }> {
    const checks = {
      database: (await this.database.isAvailable()) ? 'ok' : 'no answer',
      runner: this.runner.isClaiming ? 'ok' : 'its last look for work failed, or it is stopping',
    }
    const isReady = Object.values(checks).every((check) => check === 'ok')
    response.status(isReady ? 200 : 503)
    return { status: isReady ? 'ok' : 'unavailable', checks }
  }
}
