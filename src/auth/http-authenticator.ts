import type { IncomingMessage, ServerResponse } from 'node:http'
import { type ArgumentsHost, Catch, type ExceptionFilter, Injectable } from '@nestjs/common'
import type { Request, Response } from 'express'
import { DatabaseUnavailableError } from '../database/errors.ts'
import { ForbiddenError, RateLimitedError, ShipcastError, UnauthenticatedError } from '../errors.ts'
import { toClientError } from '../graphql/error-formatting.ts'
import { ClientAddress } from './client-address.ts'
import { Authenticator } from './credentials/authenticator.ts'
import { type Principal, setPrincipal } from './principal.ts'

/** Authenticates HTTP requests; `principalOf` then returns the result. */
@Injectable()
export class HttpAuthenticator {
  constructor(
    private readonly authenticator: Authenticator,
    private readonly clientAddress: ClientAddress,
  ) {}

  /** @throws UnauthenticatedError, RateLimitedError, DatabaseUnavailableError */
  async authenticate(request: IncomingMessage): Promise<Principal> {
    const address = this.clientAddress.of(request)
    const identity = await this.authenticator.authenticate({ headers: request.headers, address })
    const principal = { ...identity, address }
    setPrincipal(request, principal)
    return principal
  }
}

/** Responds to requests that a guard or controller refuses. Nest itself would respond with status 500. */
@Catch(ShipcastError, DatabaseUnavailableError)
export class AuthErrorsFilter implements ExceptionFilter {
  catch(error: ShipcastError | DatabaseUnavailableError, host: ArgumentsHost): void {
    const http = host.switchToHttp()
    const response = http.getResponse<Response>()
    setErrorStatus(response, error, 'Bearer')
    // The rest of the body is not read.
    if (!http.getRequest<Request>().complete) response.setHeader('Connection', 'close')
    sendErrorText(response, error)
  }
}

/** Sets the status and headers for an error; `scheme` is the challenge of a 401 (RFC 9110, 11.6.1). */
export function setErrorStatus(response: ServerResponse, error: unknown, scheme: string): void {
  response.setHeader('Cache-Control', 'no-store')
  if (error instanceof UnauthenticatedError) {
    response.statusCode = 401
    response.setHeader('WWW-Authenticate', scheme)
  } else if (error instanceof ForbiddenError) {
    response.statusCode = 403
  } else if (error instanceof RateLimitedError) {
    response.statusCode = 429
    if (error.retryAfterSeconds !== null) response.setHeader('Retry-After', String(error.retryAfterSeconds))
  } else {
    response.statusCode = 503
  }
}

export function sendErrorText(response: ServerResponse, error: unknown): void {
  response.setHeader('Content-Type', 'text/plain; charset=utf-8')
  response.end(`${toClientError(error).message}\n`)
}
