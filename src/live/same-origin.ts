import type { IncomingMessage } from 'node:http'
import { isIP } from 'node:net'
import type { Config } from '../config.ts'

/**
 * Why a request must be refused: another site's page sends it from somebody's browser, or has made its own name point
 * at us (DNS rebinding). Programs that are not browsers send no `Origin` and are let through.
 */
export function refuseForeign(request: IncomingMessage, config: Config): string | undefined {
  const host = request.headers.host ?? ''
  if (!isOurName(host, config)) {
    return `This server does not answer to the name "${host.slice(0, 100)}". If it should, set PUBLIC_URL to the address that people use.`
  }
  const { origin } = request.headers
  if (origin !== undefined && URL.parse(origin)?.host !== host && origin !== config.publicUrl) {
    return `Requests from pages of ${origin.slice(0, 100)} are refused. If that is this server's own address, set PUBLIC_URL to it.`
  }
  const site = request.headers['sec-fetch-site']
  if (
    origin === undefined &&
    site === 'cross-site' &&
    request.method !== 'GET' &&
    request.method !== 'HEAD'
  ) {
    return 'Requests from pages of other sites are refused.'
  }
  return undefined
}

/** On loopback only loopback's names are ours: another name for it was made up by somebody else. */
function isOurName(host: string, config: Config): boolean {
  if (host === URL.parse(config.publicUrl)?.host) return true
  const name = URL.parse(`http://${host}`)?.hostname ?? ''
  if (isLoopback(name)) return true
  return !isLoopback(config.host) || isIP(name.replace(/^\[|\]$/g, '')) !== 0
}

function isLoopback(name: string): boolean {
  return name === 'localhost' || name === '[::1]' || name === '::1' || /^127(\.\d{1,3}){3}$/.test(name)
}
