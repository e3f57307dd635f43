import type { IncomingHttpHeaders, IncomingMessage } from 'node:http'
import { isIP } from 'node:net'
import { type Config, isLoopbackHost } from '../config/config.ts'

/** Names that requests have called us by. Few are in use; judging one takes longer than remembering it. */
const MAX_CACHED_HOSTS = 100

/**
 * Says why a request must be refused: another site's page sends it from somebody's browser, or has made its own name
 * point at us (DNS rebinding); or a proxy sends it for another machine where only this one is let in. Programs that are
 * not browsers send no `Origin` and are let through.
 */
export class OriginGuard {
  private readonly hostDecisions = new Map<string, boolean>()

  constructor(private readonly config: Pick<Config, 'host' | 'publicUrl' | 'access'>) {}

  rejectionReason({ headers, method, url }: IncomingMessage): string | undefined {
    const { host = '', origin } = headers
    if (!this.config.access.isRequired && !forwardedFor(headers).every(isThisMachine)) {
      return 'This request comes from another machine, through a proxy on this one, and nothing says who may do what. Set ACCESS=required; see "Access" in the README.'
    }
    if (!this.isOwnHost(host)) {
      return `This server does not answer to the name "${host.slice(0, 100)}". If it should, set PUBLIC_URL to the address that people use.`
    }
    if (origin === undefined) {
      return isFromAnotherSite(headers) && !isNavigation(method, url)
        ? 'Requests from pages of other sites are refused.'
        : undefined
    }
    if (URL.parse(origin)?.host === host || origin === this.config.publicUrl) return undefined
    return `Requests from pages of ${origin.slice(0, 100)} are refused. If that is this server's own address, set PUBLIC_URL to it.`
  }

  private isOwnHost(host: string): boolean {
    const before = this.hostDecisions.get(host)
    if (before !== undefined) return before
    const isOurs = this.checkHost(host)
    if (host.length > 255) return isOurs
    if (this.hostDecisions.size >= MAX_CACHED_HOSTS) this.hostDecisions.clear()
    this.hostDecisions.set(host, isOurs)
    return isOurs
  }

  /**
   * On loopback another name was made up by somebody else; where nothing has to be shown an address of the network is
   * such a name, too: a port was forwarded to us.
   */
  private checkHost(host: string): boolean {
    if (host === URL.parse(this.config.publicUrl)?.host) return true
    const name = URL.parse(`http://${host}`)?.hostname ?? ''
    if (isLoopbackHost(name)) return true
    if (!this.config.access.isRequired) return false
    return !isLoopbackHost(this.config.host) || isIP(name.replace(/^\[|\]$/g, '')) !== 0
  }
}

/** As browsers say it (W3C Fetch Metadata); `same-site` is another name of our domain. */
function isFromAnotherSite(headers: IncomingHttpHeaders): boolean {
  const site = headers['sec-fetch-site']
  return site === 'cross-site' || site === 'same-site'
}

/** A link to the page, or to a file of it. `GET /graphql` runs a query, with the session of whoever is at the browser. */
function isNavigation(method = 'GET', url = '/'): boolean {
  return (method === 'GET' || method === 'HEAD') && !/^\/graphql\/?(\?|$)/i.test(url)
}

const NOT_FORWARDED: string[] = []

/** From where proxies say that a request comes: RFC 7239, and what was used before it. */
function forwardedFor(headers: IncomingHttpHeaders): string[] {
  const { 'x-forwarded-for': proxied, 'x-real-ip': real, forwarded } = headers
  // Mostly: not even a list is made for them.
  if (proxied === undefined && real === undefined && forwarded === undefined) return NOT_FORWARDED
  const said = [proxied, real].flatMap((value) => value ?? [])
  const addresses = said.flatMap((value) => value.split(',')).map((address) => address.trim())
  const elements = (forwarded ?? '').matchAll(/(?:^|[;,])\s*for="?([^",;]*)/gi)
  return [...addresses, ...Array.from(elements, ([, address = '']) => address.trim())]
}

/** With a port or without. */
function isThisMachine(address: string): boolean {
  return /^((::ffff:)?127(\.\d{1,3}){3}(:\d+)?|::1|\[::1\](:\d+)?)$/i.test(address)
}
