import type { Server } from 'node:http'
import { fileURLToPath } from 'node:url'
import { Logger } from '@nestjs/common'
import type { NestExpressApplication } from '@nestjs/platform-express'
import compression from 'compression'
import express, { type RequestHandler } from 'express'
import { GraphQLError } from 'graphql'
import { HttpAccess, senderOf } from './auth/http-access.ts'
import type { Config } from './config.ts'
import { gitHttpHandler } from './github/git-http.ts'
import { forgeFolder } from './github/github.module.ts'
import { OriginGuard } from './live/origin-guard.ts'
import { jsonBody, refuse } from './request-body.ts'

const PAGE_FOLDER = fileURLToPath(new URL('../dist/client', import.meta.url))

/** Whatever is HTTP and not GraphQL: who may ask, how much at once, the clone URLs, and the page. */
export function configureHttp(app: NestExpressApplication, config: Config): void {
  const gitLogger = new Logger('GitHttp')
  const access = app.get(HttpAccess)
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
  app.use('/graphql', refuseOtherMethods)
  app.use('/graphql', jsonBody({ subjectOf: (request) => senderOf(request).subject }))
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

/** RFC 9110, 15.5.6. Subscriptions upgrade a GET, and do not come this way. */
const refuseOtherMethods: RequestHandler = (request, response, next) => {
  const { method } = request
  if (method === 'GET' || method === 'HEAD' || method === 'POST') return next()
  response.setHeader('Allow', 'GET, POST')
  const message = `${method} is not possible here. Send queries by POST.`
  refuse(request, response, {
    status: 405,
    error: new GraphQLError(message, { extensions: { code: 'BAD_REQUEST' } }),
  })
}

/** The build names its assets by their content. */
function cacheHeaders(response: express.Response, path: string): void {
  const isNamedByContent = path.includes('/assets/')
  response.setHeader('Cache-Control', isNamedByContent ? 'public, max-age=31536000, immutable' : 'no-cache')
}
