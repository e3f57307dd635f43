import { Controller, Get, Res } from '@nestjs/common'
import type { Response } from 'express'
import { Database } from '../database/database.ts'
import { DeploymentRunner } from '../deployments/runner/deployment-runner.ts'

/** For orchestrators and load balancers. */
@Controller('health')
export class HealthController {
  constructor(
    private readonly database: Database,
    private readonly runner: DeploymentRunner,
  ) {}

  /** The process responds. Does not check dependencies, which a restart would not fix. */
  @Get('live')
  live(): { status: 'ok' } {
    return { status: 'ok' }
  }

  /** 200 if a deployment would be accepted and run now: the database responds and the runner claims work. */
  @Get('ready')
  async ready(@Res({ passthrough: true }) response: Response): Promise<{ status: string; checks: object }> {
    const checks = {
      database: (await this.database.isAvailable()) ? 'ok' : 'no response',
      runner: this.runner.isClaiming ? 'ok' : 'not claiming work: its last poll failed, or it is stopping',
    }
    const isReady = Object.values(checks).every((check) => check === 'ok')
    response.status(isReady ? 200 : 503)
    return { status: isReady ? 'ok' : 'unavailable', checks }
  }
}
