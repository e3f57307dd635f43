import { Injectable } from '@nestjs/common'
import { LRUCache } from 'lru-cache'
import { Config } from '../config/config.ts'
import { RateLimitedError } from '../errors.ts'
import { networkOf } from './client-address.ts'
import { LOCAL_SUBJECT, type Subject } from './rights.ts'

const MINUTE_MS = 60_000
/** Subjects or addresses that are counted at the same time; beyond it the one that was quiet for longest is forgotten. */
const MAX_COUNTED_KEYS = 50_000
/** Tokens and sessions that are not valid, from one address in a minute. */
const MAX_FAILED_AUTHS = 30
/** Of these, so many are noted in the audit log. */
const AUDITED_FAILURES = 5

/** How often something may be done in a minute. Each node counts for itself; everybody on this machine is not counted. */
@Injectable()
export class RateLimiter {
  private readonly mutations: MinuteWindowCounter
  private readonly subscriptions: MinuteWindowCounter
  private readonly cost: MinuteWindowCounter
  private readonly signIns: MinuteWindowCounter
  private readonly failedAuths = new MinuteWindowCounter(MAX_FAILED_AUTHS)

  constructor({ access }: Config) {
    this.mutations = new MinuteWindowCounter(access.mutationsPerMinute)
    this.subscriptions = new MinuteWindowCounter(access.subscriptionsPerMinute)
    this.cost = new MinuteWindowCounter(access.costPerMinute)
    this.signIns = new MinuteWindowCounter(access.signInsPerMinute)
  }

  /** Each field of a mutation counts, however many a request has. @throws RateLimited */
  countMutation({ id }: Subject): void {
    if (id !== LOCAL_SUBJECT.id)
      enforceLimit(this.mutations, id, (most) => `You may send ${most} mutations a minute.`)
  }

  /** @throws RateLimited */
  countSubscription({ id }: Subject): void {
    if (id !== LOCAL_SUBJECT.id)
      enforceLimit(this.subscriptions, id, (most) => `You may begin ${most} subscriptions a minute.`)
  }

  /** What a query or mutation costs, about one for each field of its answer. @throws RateLimited */
  countCost({ id }: Subject, cost: number): void {
    if (id !== LOCAL_SUBJECT.id)
      enforceLimit(this.cost, id, (most) => `Your queries may cost ${most} a minute.`, cost)
  }

  /** @throws RateLimited */
  countSignIn(address: string): void {
    enforceLimit(
      this.signIns,
      networkOf(address),
      (most) => `From one address, ${most} sign-ins a minute may begin.`,
    )
  }

  /** Somebody has shown what is not valid. True: it is to be noted. @throws RateLimited */
  recordFailedAuth(address: string): boolean {
    const { count, endsInMs } = this.failedAuths.add(networkOf(address))
    if (count > MAX_FAILED_AUTHS) {
      throw new RateLimitedError('Too many tokens or sessions from your address were not valid.', endsInMs)
    }
    return count <= AUDITED_FAILURES
  }
}

function enforceLimit(
  counter: MinuteWindowCounter,
  key: string,
  say: (most: number) => string,
  amount = 1,
): void {
  const { count, endsInMs } = counter.add(key, amount)
  if (count > counter.limit) throw new RateLimitedError(say(counter.limit), endsInMs)
}

/** Counts in windows that begin with the first, and last a minute. */
class MinuteWindowCounter {
  private readonly windows = new LRUCache<string, { count: number; endsAt: number }>({
    max: MAX_COUNTED_KEYS,
  })

  constructor(readonly limit: number) {}

  add(key: string, amount = 1): { count: number; endsInMs: number } {
    const now = performance.now()
    const before = this.windows.get(key)
    const window = before && before.endsAt > now ? before : { count: 0, endsAt: now + MINUTE_MS }
    window.count += amount
    this.windows.set(key, window)
    return { count: window.count, endsInMs: Math.ceil(window.endsAt - now) }
  }
}
