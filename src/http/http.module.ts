import type { Server } from 'node:http'
import { fileURLToPath } from 'node:url'
import { type MiddlewareConsumer, Module, type NestModule } from '@nestjs/common'
import { HttpAdapterHost } from '@nestjs/core'
import compression from 'compression'
import express, { type RequestHandler } from 'express'
import { GraphQLError } from 'graphql'
import { AuthModule } from '../auth/auth.module.ts'
import { principalOf } from '../auth/principal.ts'
import { Config } from '../config/config.ts'
import { checkDocumentText } from '../graphql/document-limits.ts'
import { enforceMinimumReadRate } from '../runtime/minimum-read-rate.ts'
import { AuthenticationMiddleware } from './authentication.middleware.ts'
import { limitConnections } from './connection-limits.ts'
import { GitMiddleware } from './git.middleware.ts'
import { MetricsController } from './metrics.controller.ts'
import { OriginMiddleware, OriginPolicy } from './origin.middleware.ts'
import { jsonBody, rejectRequest } from './request-body.ts'
import { securityHeaders } from './security-headers.ts'
import { closeIdleConnectionsAtShutdown } from './shutdown.ts'

/**
 * How long an idle connection stays open. Must exceed the limit of any proxy in front: a proxy that sends a
 * request just as the connection closes responds with 502. nginx and AWS keep connections for 60 s, Traefik
 * for 90 s, Caddy for 120 s, and Google's load balancers for 600 s.
 */
const KEEP_ALIVE_MS = 620_000
/** The lowest rate at which a client can read a response; clone URLs have the same one. */
const MIN_READ_RATE = { bytesPerSecond: 64 * 1024, toleranceSeconds: 30 }

const CLIENT_FOLDER = fileURLToPath(new URL('../../dist/client', import.meta.url))

/** The middleware in front of controllers and GraphQL, in the order in which a request passes it. */
@Module({
  imports: [AuthModule],
  controllers: [MetricsController],
  providers: [OriginPolicy],
  exports: [OriginPolicy],
})
export class HttpModule implements NestModule {
  constructor(
    private readonly config: Config,
    private readonly adapterHost: HttpAdapterHost,
  ) {}

  configure(consumer: MiddlewareConsumer): void {
    const server: Server = this.adapterHost.httpAdapter.getHttpServer()
    server.keepAliveTimeout = KEEP_ALIVE_MS
    limitConnections(server, this.config)
    consumer
      .apply(
        skipDestroyedSockets,
        closeIdleConnectionsAtShutdown(server),
        securityHeaders(this.config),
        OriginMiddleware,
      )
      .forRoutes('/')
      .apply(GitMiddleware)
      .forRoutes('/git')
      .apply(enforceReadRate)
      .forRoutes('/')
      .apply(
        AuthenticationMiddleware,
        rejectOtherMethods,
        jsonBody({ subjectOf: (request) => principalOf(request).subject }),
        checkDocument,
      )
      .forRoutes('/graphql')
      .apply(
        compression({ filter: ({ method }) => method === 'GET' }),
        express.static(CLIENT_FOLDER, { extensions: ['html'], setHeaders: setCacheControl }),
      )
      .forRoutes('/')
  }
}

/** After a connection is destroyed, the parser still delivers the requests that it has read. */
const skipDestroyedSockets: RequestHandler = ({ socket }, _response, next) => {
  if (!socket.destroyed) next()
}

/** A response stays in memory until it has been read. */
const enforceReadRate: RequestHandler = (_request, response, next) => {
  enforceMinimumReadRate(response, MIN_READ_RATE, () => response.destroy())
  next()
}

/** RFC 9110, 15.5.6. Subscriptions upgrade a GET, which does not reach middleware. */
const rejectOtherMethods: RequestHandler = (request, response, next) => {
  const { method } = request
  if (method === 'GET' || method === 'HEAD' || method === 'POST') return next()
  response.setHeader('Allow', 'GET, POST')
  rejectRequest(request, response, {
    status: 405,
    error: new GraphQLError(`${method} is not supported here. Send queries by POST.`, {
      extensions: { code: 'BAD_REQUEST' },
    }),
  })
}

/** Checks the text of a document before Apollo parses it. */
const checkDocument: RequestHandler = (request, response, next) => {
  const query: unknown = request.method === 'GET' ? request.query.query : request.body?.query
  const tooLarge = typeof query === 'string' ? checkDocumentText(query) : undefined
  if (tooLarge) response.status(400).json({ errors: [tooLarge.toJSON()] })
  else next()
}

/** The build names assets by their content. */
function setCacheControl(response: express.Response, path: string): void {
  const isNamedByContent = path.includes('/assets/')
  response.setHeader('Cache-Control', isNamedByContent ? 'public, max-age=31536000, immutable' : 'no-cache')
}
