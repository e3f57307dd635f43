import type { Server } from 'node:http'
import type { Socket } from 'node:net'
import { fileURLToPath } from 'node:url'
import { Logger } from '@nestjs/common'
import type { NestExpressApplication } from '@nestjs/platform-express'
import compression from 'compression'
import express, { type RequestHandler } from 'express'
import { GraphQLError } from 'graphql'
import { HttpAccess, principalOf } from '../auth/http-access.ts'
import type { Config } from '../config/config.ts'
import { forgeFolder } from '../github/github.module.ts'
import { gitHttpHandler } from '../github/local/git-http.ts'
import { checkDocumentText } from '../graphql/document-limits.ts'
import { enforceMinimumReadRate } from '../runtime/minimum-read-rate.ts'
import { limitConnections } from './connection-limits.ts'
import { OriginGuard } from './origin-guard.ts'
import { jsonBody, rejectRequest } from './request-body.ts'

/**
 * How long an idle connection is kept. A proxy that has just sent a request over one that we close at that moment
 * answers 502, so ours must be the longer time: nginx and AWS keep them 60 s, Traefik 90 s, Caddy 120 s, and Google's
 * load balancers 600 s.
 */
const KEEP_ALIVE_MS = 620_000
/** How slowly an answer may be read; clone URLs have the same rate. */
const MIN_READ_RATE = { bytesPerSecond: 64 * 1024, toleranceSeconds: 30 }
/** After `DRAIN_MS`, for answers that are under way. */
const CLOSE_GRACE_MS = 5_000
/** After that, for the rest of a stop: the database's connections, or its server. */
const EXIT_GRACE_MS = 15_000

const CLIENT_FOLDER = fileURLToPath(new URL('../../dist/client', import.meta.url))

/** Whatever is HTTP and not GraphQL: who may ask, how much at once, the clone URLs, and the page. */
export function configureHttp(app: NestExpressApplication, config: Config): void {
  const gitLogger = new Logger('GitHttp')
  const access = app.get(HttpAccess)
  const server: Server = app.getHttpServer()
  server.keepAliveTimeout = KEEP_ALIVE_MS
  limitConnections(server, config)
  app.disable('x-powered-by')
  app.use(skipDestroyedSockets)
  app.use(closeIdleConnectionsAtShutdown(server))
  app.use(securityHeaders(config))
  app.use(rejectForeignRequests(config))
  app.use(
    '/git',
    gitHttpHandler({
      folder: forgeFolder(config),
      cloneUrlBase: `${config.publicUrl}/git`,
      authorizeRead: (request, response, owner) => access.authorizeRepository(request, response, owner),
      ...(config.access.isRequired && { subjectOf: (request) => principalOf(request).subject.id }),
      log: (line) => gitLogger.log(line),
    }),
  )
  app.use(enforceReadRate)
  app.use('/metrics', access.authorizeMetrics)
  app.use('/auth/sign-out', access.authenticate)
  app.use('/graphql', access.authenticate)
  app.use('/graphql', rejectOtherMethods)
  app.use('/graphql', jsonBody({ subjectOf: (request) => principalOf(request).subject }))
  app.use('/graphql', checkDocument)
  app.use(
    compression({ filter: ({ method }) => method === 'GET' }),
    express.static(CLIENT_FOLDER, { extensions: ['html'], setHeaders: cacheHeaders }),
  )
}

/** Of a connection with too many requests, the parser still hands over all that it has read. */
const skipDestroyedSockets: RequestHandler = ({ socket }, _response, next) => {
  if (!socket.destroyed) next()
}

/** An answer is held in memory until it has been read. */
const enforceReadRate: RequestHandler = (_request, response, next) => {
  enforceMinimumReadRate(response, MIN_READ_RATE, () => response.destroy())
  next()
}

/**
 * Node ends the idle connections when a server is closed, and leaves those that are busy then open for five seconds
 * after their answer: so long a stop would take.
 */
function closeIdleConnectionsAtShutdown(server: Server): RequestHandler {
  return (_request, response, next) => {
    response.once('close', () => {
      if (!server.listening) setImmediate(() => server.closeIdleConnections())
    })
    next()
  }
}

/**
 * Bounds a stop, whatever others do. A closed server no longer looks at its clocks, so that a single client which
 * sends or reads a byte now and then could hold it up for as long as it likes.
 */
export function limitShutdownTime(
  server: Server,
  signals: readonly NodeJS.Signals[],
  { drainMs }: Config,
): void {
  const logger = new Logger('Stop')
  // All of them, also those that were upgraded or have not sent anything yet.
  const sockets = new Set<Socket>()
  server.on('connection', (socket: Socket) => {
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
  })
  const closeAll = () => {
    server.close()
    if (sockets.size > 0) logger.warn('Connections were still in use and are closed', { count: sockets.size })
    for (const socket of sockets) socket.destroy()
  }
  const exit = () => {
    logger.error('The shutdown took too long; the process exits')
    process.exit(1)
  }
  let isStopping = false
  for (const signal of signals) {
    process.once(signal, () => {
      if (isStopping) return
      isStopping = true
      setTimeout(closeAll, drainMs + CLOSE_GRACE_MS).unref()
      setTimeout(exit, drainMs + CLOSE_GRACE_MS + EXIT_GRACE_MS).unref()
    })
  }
}

/** Nothing is loaded from elsewhere, and nobody frames us. The playground's editor makes its own style elements. */
const securityHeaders =
  ({ publicUrl }: Config): RequestHandler =>
  (request, response, next) => {
    const styles = request.path.startsWith('/graphiql') ? "'self' 'unsafe-inline'" : "'self'"
    response.setHeader(
      'Content-Security-Policy',
      `default-src 'self'; img-src 'self' data:; style-src ${styles}; font-src 'self' data:; worker-src 'self' blob:; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'`,
    )
    response.setHeader('X-Content-Type-Options', 'nosniff')
    response.setHeader('Referrer-Policy', 'no-referrer')
    response.setHeader('Cross-Origin-Opener-Policy', 'same-origin')
    response.setHeader('Cross-Origin-Resource-Policy', 'same-origin')
    // RFC 6797: a year of https only, where it is https that people use.
    if (publicUrl.startsWith('https:')) response.setHeader('Strict-Transport-Security', 'max-age=31536000')
    next()
  }

const HEALTH_PATH = /^\/health\/(live|ready)$/

function rejectForeignRequests(config: Config): RequestHandler {
  const guard = new OriginGuard(config)
  return (request, response, next) => {
    // Balancers ask without a Host, or with a name of their own; the answer tells nothing of anyone, and changes nothing.
    const isRead = request.method === 'GET' || request.method === 'HEAD'
    if (isRead && HEALTH_PATH.test(request.path)) return next()
    const reason = guard.rejectionReason(request)
    if (reason === undefined) next()
    else response.status(403).type('text/plain').send(`${reason}\n`)
  }
}

/** RFC 9110, 15.5.6. Subscriptions upgrade a GET, and do not come this way. */
const rejectOtherMethods: RequestHandler = (request, response, next) => {
  const { method } = request
  if (method === 'GET' || method === 'HEAD' || method === 'POST') return next()
  response.setHeader('Allow', 'GET, POST')
  const message = `${method} is not possible here. Send queries by POST.`
  rejectRequest(request, response, {
    status: 405,
    error: new GraphQLError(message, { extensions: { code: 'BAD_REQUEST' } }),
  })
}

/** Apollo parses a document before it asks anybody. */
const checkDocument: RequestHandler = (request, response, next) => {
  const query: unknown = request.method === 'GET' ? request.query.query : request.body?.query
  const tooLarge = typeof query === 'string' ? checkDocumentText(query) : undefined
  if (tooLarge) response.status(400).json({ errors: [tooLarge.toJSON()] })
  else next()
}

/** The build names its assets by their content. */
function cacheHeaders(response: express.Response, path: string): void {
  const isNamedByContent = path.includes('/assets/')
  response.setHeader('Cache-Control', isNamedByContent ? 'public, max-age=31536000, immutable' : 'no-cache')
}
