import proxyAddress from 'proxy-addr'
import { z } from 'zod'
import { integer, rejectValue, text } from './env-values.ts'

/** Where the server listens, and how others reach it. */
export interface NetworkSettings {
  readonly host: string
  readonly port: number
  /** Without a trailing slash; clone URLs start with it. */
  readonly publicUrl: string
  /** Addresses or networks of the proxies whose X-Forwarded-For is trusted. */
  readonly trustedProxies: readonly string[]
}

const host = text.transform((value = '127.0.0.1', context) => {
  // 999.1.1.1 has the letters of a host, but no URL can contain it.
  if (/^[A-Za-z0-9.:_-]+$/.test(value) && URL.canParse(`http://${urlHost(value)}`)) return value
  return rejectValue(context, {
    requirement: 'must be a host name or an address without a port',
    example: '127.0.0.1',
  })
})

const publicUrl = text.transform((value, context) => {
  if (value === undefined) return undefined
  const url = URL.parse(value)
  const isHttp = url !== null && /^https?:$/.test(url.protocol)
  if (isHttp && url.pathname === '/' && !url.search && !url.hash && !url.username) return url.origin
  return rejectValue(context, {
    requirement: 'must be http:// or https:// with a host and no path',
    example: 'https://shipcast.example.com',
  })
})

const proxies = text.transform((value = '', context) => {
  const addresses = value.split(',').flatMap((item) => item.trim() || [])
  try {
    proxyAddress.compile(addresses)
    return addresses
  } catch {
    return rejectValue(context, {
      requirement: 'must be addresses or networks, separated by commas',
      example: '10.0.0.0/8,127.0.0.1',
    })
  }
})

export const networkSchema = z
  .object({
    HOST: host,
    PORT: integer({ defaultValue: 3_000, min: 1, max: 65_535 }),
    PUBLIC_URL: publicUrl,
    TRUSTED_PROXIES: proxies,
  })
  .transform(
    (env): NetworkSettings => ({
      host: env.HOST,
      port: env.PORT,
      publicUrl: env.PUBLIC_URL ?? new URL(`http://${urlHost(env.HOST)}:${env.PORT}`).origin,
      trustedProxies: env.TRUSTED_PROXIES,
    }),
  )

function urlHost(name: string): string {
  if (name === '0.0.0.0' || name === '::') return '127.0.0.1'
  return name.includes(':') ? `[${name}]` : name
}
