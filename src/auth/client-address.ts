import type { IncomingMessage } from 'node:http'
import { isIPv6 } from 'node:net'
import { Injectable } from '@nestjs/common'
import ipaddr from 'ipaddr.js'
import proxyAddress from 'proxy-addr'
import { Config } from '../config/config.ts'

/** The address of a request: the peer's, or the one in X-Forwarded-For if the peer is in TRUSTED_PROXIES. */
@Injectable()
export class ClientAddress {
  private readonly isTrusted: (address: string, index: number) => boolean

  constructor({ trustedProxies }: Config) {
    this.isTrusted = proxyAddress.compile([...trustedProxies])
  }

  of(request: IncomingMessage): string {
    return proxyAddress(request, this.isTrusted)
  }
}

/**
 * The unit that limits apply to: an IPv4 address, or the /64 that one IPv6 subscriber usually has (RFC 6177).
 */
export function networkOf(address: string): string {
  if (!isIPv6(address)) return address
  const parsed = ipaddr.process(address)
  if (!(parsed instanceof ipaddr.IPv6)) return parsed.toString()
  const prefix = parsed.parts.slice(0, 4)
  return prefix.map((part) => part.toString(16)).join(':')
}
