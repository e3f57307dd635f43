import type { IncomingHttpHeaders, IncomingMessage } from 'node:http'
import { isIP } from 'node:net'
import { Injectable, type NestMiddleware } from '@nestjs/common'
import type { NextFunction, Request, Response } from 'express'
import { Config } from '../config/config.ts'
import { isLoopbackHost } from '../config/env-values.ts'

/** Values of the Host header. Few are in use; the decision takes longer than the lookup. */
const MAX_CACHED_HOSTS = 100
const HEALTH_PATH = /^\/health\/(live|ready)$/

/**
 * Refuses requests for their origin: those that a page of another site sends from a user's browser, also
 * under a name of that site which points here (DNS rebinding), and those that a proxy forwards from another
 * machine although access is limited to this one. Programs other than browsers send no `Origin`, and pass.
 */
@Injectable()
export class OriginPolicy {
  private readonly hostDecisions = new Map<string, boolean>()

  constructor(private readonly config: Config) {}

  /** Undefined: the request is acceptable. */
  rejectionReason({ headers, method, url }: IncomingMessage): string | undefined {
    const { host = '', origin } = headers
    if (!this.config.access.isRequired && !forwardedFor(headers).every(isThisMachine)) {
      return 'A proxy forwarded this request from another machine, but access is limited to this machine. Set ACCESS=required; see "Access" in the README.'
    }
    if (!this.isOwnHost(host)) {
      return `Host "${host.slice(0, 100)}" is not allowed. If it is this server's own, set PUBLIC_URL to the address that people use.`
    }
    if (origin === undefined) {
      return isFromAnotherSite(headers) && !isNavigation(method, url)
        ? 'Requests from pages of other sites are not allowed.'
        : undefined
    }
    if (URL.parse(origin)?.host === host || origin === this.config.publicUrl) return undefined
    return `Requests from pages of ${origin.slice(0, 100)} are not allowed. If that is this server's own address, set PUBLIC_URL to it.`
  }

  private isOwnHost(host: string): boolean {
    const cached = this.hostDecisions.get(host)
    if (cached !== undefined) return cached
    const isOwn = this.checkHost(host)
    if (host.length > 255) return isOwn
    if (this.hostDecisions.size >= MAX_CACHED_HOSTS) this.hostDecisions.clear()
    this.hostDecisions.set(host, isOwn)
    return isOwn
  }

  /**
   * If the server listens on loopback, any other name points here without the operator's knowledge. So does a
   * network address if access is not configured: a forwarded port.
   */
  private checkHost(host: string): boolean {
    if (host === URL.parse(this.config.publicUrl)?.host) return true
    const name = URL.parse(`http://${host}`)?.hostname ?? ''
    if (isLoopbackHost(name)) return true
    if (!this.config.access.isRequired) return false
    return !isLoopbackHost(this.config.host) || isIP(name.replace(/^\[|\]$/g, '')) !== 0
  }
}

@Injectable()
export class OriginMiddleware implements NestMiddleware {
  constructor(private readonly policy: OriginPolicy) {}

  use(request: Request, response: Response, next: NextFunction): void {
    // Load balancers send no Host, or their own; a health check reveals and changes nothing.
    const isRead = request.method === 'GET' || request.method === 'HEAD'
    const isHealthCheck = isRead && HEALTH_PATH.test(request.path)
    const reason = isHealthCheck ? undefined : this.policy.rejectionReason(request)
    if (reason === undefined) next()
    else response.status(403).type('text/plain').send(`${reason}\n`)
  }
}

/** By W3C Fetch Metadata; `same-site` is another host of the same domain. */
function isFromAnotherSite(headers: IncomingHttpHeaders): boolean {
  const site = headers['sec-fetch-site']
  return site === 'cross-site' || site === 'same-site'
}

/** A link to the page or one of its files. Not `GET /graphql`: it runs a query with the user's session. */
function isNavigation(method = 'GET', url = '/'): boolean {
  return (method === 'GET' || method === 'HEAD') && !/^\/graphql\/?(\?|$)/i.test(url)
}

const NOT_FORWARDED: string[] = []

/** The addresses that proxies forward a request from: RFC 7239, and the headers that preceded it. */
function forwardedFor(headers: IncomingHttpHeaders): string[] {
  const { 'x-forwarded-for': proxied, 'x-real-ip': real, forwarded } = headers
  // The common case allocates nothing.
  if (proxied === undefined && real === undefined && forwarded === undefined) return NOT_FORWARDED
  const values = [proxied, real].flatMap((value) => value ?? [])
  const addresses = values.flatMap((value) => value.split(',')).map((address) => address.trim())
  const elements = (forwarded ?? '').matchAll(/(?:^|[;,])\s*for="?([^",;]*)/gi)
  return [...addresses, ...Array.from(elements, ([, address = '']) => address.trim())]
}

/** With or without a port. */
function isThisMachine(address: string): boolean {
  return /^((::ffff:)?127(\.\d{1,3}){3}(:\d+)?|::1|\[::1\](:\d+)?)$/i.test(address)
}
