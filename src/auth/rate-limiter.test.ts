import { expect, test } from '@jest/globals'
import { Config } from '../config/config.ts'
import { RateLimitedError } from '../errors.ts'
import { RateLimiter } from './rate-limiter.ts'

/** How many failed attempts from these addresses, one after another, are below the limit. */
function allowedAttempts(addresses: Iterable<string>): number {
  const rateLimiter = new RateLimiter(new Config({}))
  let count = 0
  for (const address of addresses) {
    try {
      rateLimiter.recordFailedAuth(address)
      count++
    } catch (error) {
      if (!(error instanceof RateLimitedError)) throw error
    }
  }
  return count
}

const numbers = Array.from({ length: 100 }, (_, i) => i)

test.each([
  ['2001:db8:1:2::1', '2001:db8:1:2::2', '2001:DB8:1:2:a:b:c:d', '2001:db8:1:2:ffff:0:192.0.2.1'],
  ['2001:db8::1', '2001:db8:0:0:9::', '2001:0db8:0000::7'],
  ['fe80::1%eth0', 'fe80::2', 'fe80::3%1'],
  ['192.0.2.1', '::ffff:192.0.2.1', '::FFFF:192.0.2.1'],
])('%s and similar addresses count as one network', (...addresses) => {
  expect(allowedAttempts(numbers.flatMap(() => addresses))).toBe(30)
})

test('the addresses of one IPv6 network share a limit', () => {
  expect(allowedAttempts(numbers.map((i) => `2001:db8:1:2::${i.toString(16)}`))).toBe(30)
})

test.each([
  ['IPv6 networks', (i: number) => `2001:db8:1:${i.toString(16)}::1`],
  ['IPv4 addresses', (i: number) => `192.0.2.${i}`],
  ['IPv4 addresses in IPv6 notation', (i: number) => `::ffff:192.0.2.${i}`],
])('different %s are counted separately', (_what, address) => {
  expect(allowedAttempts(numbers.map(address))).toBe(100)
})
