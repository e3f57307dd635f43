import { isIPv6 } from 'node:net'
import { Injectable } from '@nestjs/common'
import { LRUCache } from 'lru-cache'
import { Config } from '../config/config.ts'
import { RateLimited } from '../errors.ts'
import { LOCAL, type Subject } from './rights.ts'

const MINUTE_MS = 60_000
/** Subjects or addresses that are counted at the same time; beyond it the one that was quiet for longest is forgotten. */
const MOST_COUNTED = 50_000
/** Tokens and sessions that are not valid, from one address in a minute. */
const MOST_GUESSES = 30
/** Of these, so many are noted in the audit log. */
const NOTED_GUESSES = 5

/** How often something may be done in a minute. Each node counts for itself; everybody on this machine is not counted. */
@Injectable()
export class Limits {
  private readonly mutations: PerMinute
  private readonly subscriptions: PerMinute
  private readonly cost: PerMinute
  private readonly signIns: PerMinute
  private readonly guesses = new PerMinute(MOST_GUESSES)

  constructor({ access }: Config) {
    this.mutations = new PerMinute(access.mutationsPerMinute)
    this.subscriptions = new PerMinute(access.subscriptionsPerMinute)
    this.cost = new PerMinute(access.costPerMinute)
    this.signIns = new PerMinute(access.signInsPerMinute)
  }

  /** Each field of a mutation counts, however many a request has. @throws RateLimited */
  countMutation({ id }: Subject): void {
    if (id !== LOCAL.id) refuse(this.mutations, id, (most) => `You may send ${most} mutations a minute.`)
  }

  /** @throws RateLimited */
  countSubscription({ id }: Subject): void {
    if (id !== LOCAL.id)
      refuse(this.subscriptions, id, (most) => `You may begin ${most} subscriptions a minute.`)
  }

  /** What a query or mutation costs, about one for each field of its answer. @throws RateLimited */
  countCost({ id }: Subject, cost: number): void {
    if (id !== LOCAL.id) refuse(this.cost, id, (most) => `Your queries may cost ${most} a minute.`, cost)
  }

  /** @throws RateLimited */
  countSignIn(address: string): void {
    refuse(
      this.signIns,
      networkOf(address),
      (most) => `From one address, ${most} sign-ins a minute may begin.`,
    )
  }

  /** Somebody has shown what is not valid. True: it is to be noted. @throws RateLimited */
  countGuess(address: string): boolean {
    const { count, endsInMs } = this.guesses.add(networkOf(address))
    if (count > MOST_GUESSES) {
      throw new RateLimited('Too many tokens or sessions from your address were not valid.', endsInMs)
    }
    return count <= NOTED_GUESSES
  }
}

function refuse(counter: PerMinute, key: string, say: (most: number) => string, amount = 1): void {
  const { count, endsInMs } = counter.add(key, amount)
  if (count > counter.most) throw new RateLimited(say(counter.most), endsInMs)
}

/** RFC 6177: whoever has an IPv6 address mostly has all of its network of 64 bits. */
export function networkOf(address: string): string {
  if (!isIPv6(address)) return address
  const [, ipv4] = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address) ?? []
  if (ipv4 !== undefined) return ipv4
  const [before = [], after = []] = address.split('::').map((part) => part.split(':').filter(Boolean))
  const zeros = Array<string>(Math.max(0, 8 - before.length - after.length)).fill('0')
  const groups = [...before, ...zeros, ...after].slice(0, 4).map((group) => Number.parseInt(group, 16))
  return groups.map((group) => group.toString(16)).join(':')
}

/** Counts in windows that begin with the first, and last a minute. */
class PerMinute {
  private readonly windows = new LRUCache<string, { count: number; endsAt: number }>({ max: MOST_COUNTED })

  constructor(readonly most: number) {}

  add(key: string, amount = 1): { count: number; endsInMs: number } {
    const now = performance.now()
    const before = this.windows.get(key)
    const window = before && before.endsAt > now ? before : { count: 0, endsAt: now + MINUTE_MS }
    window.count += amount
    this.windows.set(key, window)
    return { count: window.count, endsInMs: Math.ceil(window.endsAt - now) }
  }
}
