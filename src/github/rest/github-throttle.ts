import { setTimeout as sleep } from 'node:timers/promises'
import { BoundedSlots } from '../../runtime/bounded-slots.ts'
import { ForgeError } from '../forge-error.ts'
import type { HttpResponse } from './http-client.ts'
import { rateLimitOf } from './rate-limit.ts'
import type { RateLimitState, RateLimitStore } from './rate-limit-store.ts'

/** - `read`, `write`: the REST and GraphQL API · `push`: git, which has no budget in common with them but the pauses */
export type CallKind = 'read' | 'write' | 'push'

export interface ThrottleOptions {
  credentialId: string
  rateLimitStore: RateLimitStore
  /** Milliseconds between two writes, over all nodes. 0: only one after the other on each node. */
  writeSpacingMs: number
  /** Repositories an hour; null: as many as are asked for. */
  maxCreationsPerHour: number | null
  /** Names the credential's owner's clock for people: now + so many milliseconds. */
  now?: () => number
}

const MAX_CONCURRENT_READS = 5
const MAX_CONCURRENT_PUSHES = 2
const MAX_WAITING = 2_000
/** Whoever would have to wait longer for its turn to write gives its place free meanwhile. */
const MAX_WRITE_WAIT_MS = 10_000
/** Rate-limit answers in a row, after which nothing waits by itself any more. */
export const MAX_CONSECUTIVE_RATE_LIMITS = 5

/**
 * All that a credential asks of GitHub goes through here: reads at most five at once, writes one after the other and a
 * second apart, nothing at all during a pause. So GitHub wants it: docs "Best practices for using the REST API".
 *
 * An answer that says "too many requests" pauses the credential for everybody, on all nodes, and rejects with
 * `RATE_LIMITED`. It is not waited here: the runner gives the place free.
 */
export class GitHubThrottle {
  private readonly options: ThrottleOptions
  private readonly slots = {
    read: new BoundedSlots(MAX_CONCURRENT_READS, MAX_WAITING),
    write: new BoundedSlots(1, MAX_WAITING),
    push: new BoundedSlots(MAX_CONCURRENT_PUSHES, MAX_WAITING),
  }

  constructor(options: ThrottleOptions) {
    this.options = options
  }

  /** Sends when it may be sent. Resolves to any answer but "too many requests". */
  async run(
    kind: CallKind,
    signal: AbortSignal,
    send: () => Promise<HttpResponse>,
    { isCreation = false } = {},
  ): Promise<HttpResponse> {
    const { credentialId, rateLimitStore: pauses } = this.options
    await this.requireNotPaused()
    if (isCreation) await this.reserveCreation()
    if (kind === 'write') await this.waitForWriteSlot(signal)
    const leave = await this.slots[kind].acquire(signal)
    if (leave === null) throw new ForgeError('TRANSIENT', 'Too many calls wait for GitHub already.')
    try {
      // Somebody may have been told to pause while this one waited.
      const seen = await this.requireNotPaused()
      const answer = await send()
      const limit = rateLimitOf(answer, seen.consecutiveRateLimits)
      const isWrite = kind !== 'read'
      if (limit === null) {
        if (answer.status < 400) await pauses.recordSuccess(credentialId, seen, isWrite)
        return answer
      }
      const state = await pauses.recordRateLimit(credentialId, seen, { pauseMs: limit.pauseMs, isWrite })
      throw this.rateLimitedError(state, answer)
    } finally {
      leave()
    }
  }

  private async requireNotPaused(): Promise<RateLimitState> {
    const state = await this.options.rateLimitStore.state(this.options.credentialId)
    if (state.pausedForMs > 0) throw this.rateLimitedError(state)
    return state
  }

  private async waitForWriteSlot(signal: AbortSignal): Promise<void> {
    const { credentialId, rateLimitStore: pauses, writeSpacingMs } = this.options
    if (writeSpacingMs === 0) return
    const { isReserved, waitMs } = await pauses.reserveWrite(credentialId, writeSpacingMs, MAX_WRITE_WAIT_MS)
    if (!isReserved) {
      throw this.retryLaterError(
        waitMs,
        'So many repositories are being created that this one has to wait its turn.',
      )
    }
    await sleep(waitMs, undefined, { signal }).catch(() => signal.throwIfAborted())
  }

  private async reserveCreation(): Promise<void> {
    const { credentialId, rateLimitStore: pauses, maxCreationsPerHour: most } = this.options
    if (most === null) return
    const { isReserved, waitMs } = await pauses.reserveCreation(credentialId, most)
    if (!isReserved) {
      throw this.retryLaterError(
        waitMs,
        `${most} repositories have been created within the hour, which is as many as GitHub lets a credential create without harm.`,
      )
    }
  }

  private rateLimitedError(state: RateLimitState, answer?: HttpResponse): ForgeError {
    const facts = answer && {
      status: answer.status,
      ...(answer.headers['x-github-request-id'] && { requestId: answer.headers['x-github-request-id'] }),
    }
    if (state.consecutiveRateLimits < MAX_CONSECUTIVE_RATE_LIMITS) {
      return this.retryLaterError(
        state.pausedForMs,
        'GitHub takes no more requests of this credential for a while (rate limit).',
        facts,
      )
    }
    const until = new Date(this.now() + state.pausedForMs)
    return new ForgeError(
      'RATE_LIMITED',
      `GitHub has limited this credential ${state.consecutiveRateLimits} times in a row, each time after the pause that it asked for. Ask less of it, or give Shipcast a credential of its own; then retry, not before ${formatTime(until)}.`,
      facts,
    )
  }

  private retryLaterError(
    waitMs: number,
    why: string,
    facts: { status?: number; requestId?: string } = {},
  ): ForgeError {
    const retryAt = new Date(this.now() + Math.max(0, waitMs))
    return new ForgeError('RATE_LIMITED', `${why} This goes on by itself at ${formatTime(retryAt)}.`, {
      ...facts,
      retryAt,
    })
  }

  private now(): number {
    return (this.options.now ?? Date.now)()
  }
}

function formatTime(time: Date): string {
  return `${time.toISOString().slice(0, 19).replace('T', ' ')} UTC`
}
