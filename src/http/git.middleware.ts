import type { IncomingMessage, ServerResponse } from 'node:http'
import { Injectable, Logger, type NestMiddleware } from '@nestjs/common'
import { HttpAuthenticator, sendErrorText, setErrorStatus } from '../auth/http-authenticator.ts'
import { principalOf } from '../auth/principal.ts'
import { includesOrg } from '../auth/rights.ts'
import { Config } from '../config/config.ts'
import { forgeFolder } from '../github/github.module.ts'
import { gitHttpHandler } from '../github/local/git-http.ts'

/** Serves the clone URLs of the local forge, `/git/<org>/<repo>`. */
@Injectable()
export class GitMiddleware implements NestMiddleware {
  private readonly logger = new Logger('GitHttp')
  private readonly handle: ReturnType<typeof gitHttpHandler>

  constructor(
    config: Config,
    private readonly authenticator: HttpAuthenticator,
  ) {
    this.handle = gitHttpHandler({
      folder: forgeFolder(config),
      cloneUrlBase: `${config.publicUrl}/git`,
      authorizeRead: (request, response, owner) => this.authorizeRead(request, response, owner),
      ...(config.access.isRequired && { subjectOf: (request) => principalOf(request).subject.id }),
      log: (line) => this.logger.log(line),
    })
  }

  use(request: IncomingMessage, response: ServerResponse): void {
    this.handle(request, response)
  }

  private async authorizeRead(
    request: IncomingMessage,
    response: ServerResponse,
    org: string,
  ): Promise<'allowed' | 'hidden' | 'answered'> {
    try {
      const { subject } = await this.authenticator.authenticate(request)
      return includesOrg(subject.rights.sees, org) ? 'allowed' : 'hidden'
    } catch (error) {
      setErrorStatus(response, error, 'Basic realm="Shipcast", charset="UTF-8"')
      sendErrorText(response, error)
      return 'answered'
    }
  }
}
