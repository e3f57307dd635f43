import type { Request, RequestHandler } from 'express'
import helmet from 'helmet'
import type { Config } from '../config/config.ts'

const YEAR_SECONDS = 31_536_000

/** The page loads nothing from other sites, and no other site can frame it. */
export function securityHeaders({ publicUrl }: Pick<Config, 'publicUrl'>): RequestHandler {
  return helmet({
    contentSecurityPolicy: {
      useDefaults: false,
      directives: {
        defaultSrc: ["'self'"],
        imgSrc: ["'self'", 'data:'],
        styleSrc: [styleSources],
        fontSrc: ["'self'", 'data:'],
        workerSrc: ["'self'", 'blob:'],
        objectSrc: ["'none'"],
        baseUri: ["'none'"],
        formAction: ["'self'"],
        frameAncestors: ["'none'"],
      },
    },
    frameguard: { action: 'deny' },
    // Only where people use https; other names of the domain are not ours to decide.
    strictTransportSecurity: publicUrl.startsWith('https:') && {
      maxAge: YEAR_SECONDS,
      includeSubDomains: false,
    },
  })
}

/** The playground's editor creates style elements. */
function styleSources(request: unknown): string {
  return (request as Request).path.startsWith('/graphiql') ? "'self' 'unsafe-inline'" : "'self'"
}
