import { Controller, Get, Res } from '@nestjs/common'
import type { Response } from 'express'
import { Database } from '../database/database.ts'
import { DeploymentRunner } from '../deployments/runner/deployment-runner.ts'

/** Health checks, for supervisors and load balancers. */
@Controller('health')
export class HealthController {
  constructor(
    private readonly database: Database,
    private readonly runner: DeploymentRunner,
  ) {}

  /** The process responds. Does not check dependencies: restarting the process would not fix them. */
  @Get('live')
  live(): { status: 'ok' } {
    return { status: 'ok' }
  }

  /** 200 if the node can accept and run a deployment: the database responds, and the runner claims work. */
  @Get('ready')
  async ready(@Res({ passthrough: true }) response: Response): Promise<{ status: string; checks: object }> {
    const checks = {
      database: (await this.database.isAvailable()) ? 'ok' : 'no answer',
      runner: this.runner.isClaiming ? 'ok' : 'the last poll failed, or the runner is stopping',
    }
    const isReady = Object.values(checks).every((check) => check === 'ok')
    response.status(isReady ? 200 : 503)
    return { status: isReady ? 'ok' : 'unavailable', checks }
  }
}
