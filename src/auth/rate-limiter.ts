import { Injectable } from '@nestjs/common'
import { LRUCache } from 'lru-cache'
import { Config } from '../config/config.ts'
import { RateLimitedError } from '../errors.ts'
import { networkOf } from './client-address.ts'
import { LOCAL_SUBJECT, type Subject } from './rights.ts'

const MINUTE_MS = 60_000
/** Subjects or networks counted at the same time; beyond it the least recently used one is forgotten. */
const MAX_COUNTED_KEYS = 50_000
/** Invalid tokens and sessions from one network in a minute. */
const MAX_FAILED_AUTHS = 30
/** The first of these are recorded in the audit log. */
const AUDITED_FAILURES = 5

/** Limits actions per minute. Each node counts for itself; the local subject has no limits. */
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

  /** Counts each field of a mutation. @throws RateLimitedError */
  countMutation({ id }: Subject): void {
    if (id === LOCAL_SUBJECT.id) return
    enforceLimit(this.mutations, id, (limit) => `The limit is ${limit} mutations per minute.`)
  }

  /** @throws RateLimitedError */
  countSubscription({ id }: Subject): void {
    if (id === LOCAL_SUBJECT.id) return
    enforceLimit(this.subscriptions, id, (limit) => `The limit is ${limit} new subscriptions per minute.`)
  }

  /** Counts the estimated cost of a query or mutation. @throws RateLimitedError */
  countCost({ id }: Subject, cost: number): void {
    if (id === LOCAL_SUBJECT.id) return
    enforceLimit(this.cost, id, (limit) => `The limit is a query cost of ${limit} per minute.`, cost)
  }

  /** @throws RateLimitedError */
  countSignIn(address: string): void {
    enforceLimit(
      this.signIns,
      networkOf(address),
      (limit) => `The limit is ${limit} sign-ins per minute from one address.`,
    )
  }

  /**
   * Counts an invalid token or session. Returns whether to record it in the audit log.
   * @throws RateLimitedError
   */
  recordFailedAuth(address: string): boolean {
    const { count, endsInMs } = this.failedAuths.add(networkOf(address))
    if (count > MAX_FAILED_AUTHS) {
      throw new RateLimitedError('Too many invalid tokens or sessions from your address.', endsInMs)
    }
    return count <= AUDITED_FAILURES
  }
}

function enforceLimit(
  counter: MinuteWindowCounter,
  key: string,
  describe: (limit: number) => string,
  amount = 1,
): void {
  const { count, endsInMs } = counter.add(key, amount)
  if (count > counter.limit) throw new RateLimitedError(describe(counter.limit), endsInMs)
}

/** Counts in windows of a minute that begin with the first action. */
class MinuteWindowCounter {
  private readonly windows = new LRUCache<string, { count: number; endsAt: number }>({
    max: MAX_COUNTED_KEYS,
  })

  constructor(readonly limit: number) {}

  add(key: string, amount = 1): { count: number; endsInMs: number } {
    const now = performance.now()
    const current = this.windows.get(key)
    const window = current && current.endsAt > now ? current : { count: 0, endsAt: now + MINUTE_MS }
    window.count += amount
    this.windows.set(key, window)
    return { count: window.count, endsInMs: Math.ceil(window.endsAt - now) }
  }
}
