import type { IncomingMessage, ServerResponse } from 'node:http'
import { Injectable } from '@nestjs/common'
import type { RequestHandler } from 'express'
import { Config } from '../config/config.ts'
import { ForbiddenError, RateLimitedError, UnauthenticatedError } from '../errors.ts'
import { toClientError } from '../graphql/client-errors.ts'
import { Authenticator, clientAddress, type Identity } from './credentials/authenticator.ts'
import { includesOrg, type Subject } from './rights.ts'

const principals = new WeakMap<IncomingMessage, Principal>()

export interface Principal {
  subject: Subject
  /** A session that the request came with, to be ended by signing out. */
  credential: Identity['credential']
  address: string
}

/** Who a request is from. It has to have passed one of HttpAccess's handlers. */
export function principalOf(request: IncomingMessage): Principal {
  const sender = principals.get(request)
  if (!sender) throw new Error('Nobody has looked who this request is from.')
  return sender
}

/** Who is let in over HTTP. */
@Injectable()
export class HttpAccess {
  readonly addressOf: (request: IncomingMessage) => string

  constructor(
    config: Config,
    private readonly authenticator: Authenticator,
  ) {
    this.addressOf = clientAddress(config.trustedProxies)
  }

  /** Before anything of the body is read. Refuses as GraphQL answers. */
  readonly authenticate: RequestHandler = async (request, response, next) => {
    const error = await this.tryAuthenticate(request)
    if (error === undefined) return next()
    setChallenge(response, error, 'Bearer')
    // The rest of the body is not read.
    response.set('Connection', 'close').json({ errors: [toClientError(error)] })
  }

  /** For `/metrics`: what is there is not of one organization, so that it is for those who see all. */
  readonly authorizeMetrics: RequestHandler = async (request, response, next) => {
    const error = await this.tryAuthenticate(request)
    if (error !== undefined) return sendErrorText(setChallenge(response, error, 'Bearer'), error)
    if (principalOf(request).subject.rights.sees === 'all') return next()
    sendErrorText(
      response.status(403),
      new ForbiddenError('This is for those who may see every organization.'),
    )
  }

  /** Whether a request may read the repositories of an organization; `answered`: it has been told that nobody knows it. */
  async authorizeRepository(
    request: IncomingMessage,
    response: ServerResponse,
    org: string,
  ): Promise<'allowed' | 'hidden' | 'answered'> {
    const error = await this.tryAuthenticate(request)
    if (error === undefined) {
      return includesOrg(principalOf(request).subject.rights.sees, org) ? 'allowed' : 'hidden'
    }
    sendErrorText(setChallenge(response, error, 'Basic realm="Shipcast", charset="UTF-8"'), error)
    return 'answered'
  }

  private async tryAuthenticate(request: IncomingMessage): Promise<unknown> {
    try {
      const address = this.addressOf(request)
      const { headers } = request
      principals.set(request, { ...(await this.authenticator.authenticate({ headers, address })), address })
      return undefined
    } catch (error) {
      return error
    }
  }
}

/** RFC 9110, 11.6.1: what has to be shown. */
function setChallenge<R extends ServerResponse>(response: R, error: unknown, scheme: string): R {
  response.setHeader('Cache-Control', 'no-store')
  if (error instanceof UnauthenticatedError) {
    response.statusCode = 401
    response.setHeader('WWW-Authenticate', scheme)
  } else if (error instanceof RateLimitedError) {
    response.statusCode = 429
    if (error.retryAfterSeconds !== null) response.setHeader('Retry-After', String(error.retryAfterSeconds))
  } else {
    response.statusCode = 503
  }
  return response
}

function sendErrorText(response: ServerResponse, error: unknown): void {
  response.setHeader('Content-Type', 'text/plain; charset=utf-8')
  response.end(`${toClientError(error).message}\n`)
}
