import type { Server } from 'node:http'
import { fileURLToPath } from 'node:url'
import { Logger } from '@nestjs/common'
import type { NestExpressApplication } from '@nestjs/platform-express'
import compression from 'compression'
import express, { type ErrorRequestHandler, type RequestHandler } from 'express'
import { HttpAccess } from './auth/http-access.ts'
import type { Config } from './config.ts'
import { limitConnections } from './connection-limits.ts'
import { BadUserInput, type ShipcastError, TooLarge } from './errors.ts'
import { gitHttpHandler } from './github/git-http.ts'
import { forgeFolder } from './github/github.module.ts'
import { letOthersGo } from './let-others-go.ts'
import { OriginGuard } from './live/origin-guard.ts'

const MOST_BODY_BYTES = 32 * 1024 * 1024

const PAGE_FOLDER = fileURLToPath(new URL('../dist/client', import.meta.url))

/** Whatever is HTTP and not GraphQL: who may ask, how much at once, the clone URLs, and the page. */
export function configureHttp(app: NestExpressApplication, config: Config): void {
  const gitLogger = new Logger('GitHttp')
  const access = app.get(HttpAccess)
  limitConnections(app.getHttpServer(), config)
  app.disable('x-powered-by')
  app.use(endIdleConnections(app.getHttpServer()))
  app.use(securityHeaders(config))
  app.use(refuseForeignRequests(config))
  app.use(
    '/git',
    gitHttpHandler({
      folder: forgeFolder(config),
      cloneUrlBase: `${config.publicUrl}/git`,
      mayRead: (request, response, owner) => access.forRepository(request, response, owner),
      log: (line) => gitLogger.log(line),
    }),
  )
  app.use('/metrics', access.forMetrics)
  app.use('/auth/sign-out', access.forGraphQL)
  app.use('/graphql', access.forGraphQL)
  app.use('/graphql', express.json({ limit: MOST_BODY_BYTES }), explainBody, giveWay)
  app.use(
    compression({ filter: ({ method }) => method === 'GET' }),
    express.static(PAGE_FOLDER, { extensions: ['html'], setHeaders: cacheHeaders }),
  )
}

/**
 * Node ends the idle connections when a server is closed, and leaves those that are busy then open for five seconds
 * after their answer: so long a stop would take.
 */
function endIdleConnections(server: Server): RequestHandler {
  return (_request, response, next) => {
    response.once('close', () => {
      if (!server.listening) setImmediate(() => server.closeIdleConnections())
    })
    next()
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

function refuseForeignRequests(config: Config): RequestHandler {
  const guard = new OriginGuard(config)
  return (request, response, next) => {
    const reason = guard.refuse(request)
    if (reason === undefined) next()
    else response.status(403).type('text/plain').send(`${reason}\n`)
  }
}

/** Bodies that are too large or no JSON are answered as GraphQL answers, with a code and what to do. */
const explainBody: ErrorRequestHandler = (error: unknown, _request, response, next) => {
  const explained = bodyError(error)
  if (!explained) return next(error)
  const status = explained instanceof TooLarge ? 413 : 400
  // The rest of the body is not read.
  response
    .status(status)
    .set('Connection', 'close')
    .json({ errors: [explained.toJSON()] })
}

function bodyError(error: unknown): ShipcastError | undefined {
  const type = error instanceof Error && 'type' in error ? error.type : undefined
  if (type === 'entity.too.large') {
    return new TooLarge(
      `The request is larger than ${MOST_BODY_BYTES / 1024 / 1024} MiB. Send fewer or smaller files, or make a template of them.`,
    )
  }
  if (type === 'entity.parse.failed') {
    return new BadUserInput([{ path: 'body', reason: 'is not JSON; send {"query": …, "variables": …}' }])
  }
  // Its character set, compression or length.
  if (error instanceof Error && 'status' in error && Number(error.status) < 500) {
    return new BadUserInput([{ path: 'body', reason: `cannot be read: ${error.message}` }])
  }
  return undefined
}

const giveWay: RequestHandler = async (request, _response, next) => {
  await letOthersGo(request.headers['content-length'])
  next()
}

/** The build names its assets by their content. */
function cacheHeaders(response: express.Response, path: string): void {
  const isNamedByContent = path.includes('/assets/')
  response.setHeader('Cache-Control', isNamedByContent ? 'public, max-age=31536000, immutable' : 'no-cache')
}
