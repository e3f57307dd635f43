import { Injectable, type NestMiddleware } from '@nestjs/common'
import type { NextFunction, Request, Response } from 'express'
import { HttpAuthenticator, setErrorStatus } from '../auth/http-authenticator.ts'
import { toClientError } from '../graphql/error-formatting.ts'

/**
 * Authenticates `/graphql` before its body is read. A guard would run after up to 32 MiB have been parsed.
 */
@Injectable()
export class AuthenticationMiddleware implements NestMiddleware {
  constructor(private readonly authenticator: HttpAuthenticator) {}

  async use(request: Request, response: Response, next: NextFunction): Promise<void> {
    try {
      await this.authenticator.authenticate(request)
    } catch (error) {
      setErrorStatus(response, error, 'Bearer')
      // The rest of the body is not read.
      response.set('Connection', 'close').json({ errors: [toClientError(error)] })
      return
    }
    next()
  }
}
