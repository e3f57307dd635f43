import { setTimeout as sleep } from 'node:timers/promises'
import { BoundedSlots } from '../../runtime/bounded-slots.ts'
import { ForgeError } from '../forge-error.ts'
import type { HttpResponse } from './http-client.ts'
import { rateLimitPauseMs } from './rate-limit.ts'
import type { RateLimitState, RateLimitStore } from './rate-limit-store.ts'

/** `read` and `write`: the REST and GraphQL APIs. `push`: git, which shares only the pauses with them. */
type CallKind = 'read' | 'write' | 'push'

interface ThrottleOptions {
  credentialId: string
  rateLimitStore: RateLimitStore
  /** Milliseconds between two writes, across all nodes. 0: only one at a time on each node. */
  writeSpacingMs: number
  /** Null: no limit. */
  maxCreationsPerHour: number | null
}

const MAX_CONCURRENT_READS = 5
const MAX_CONCURRENT_PUSHES = 2
const MAX_WAITING = 2_000
/**
 * A call that would wait longer for its write slot is rejected, so that its caller can
 * free its own slot meanwhile.
 */
const MAX_WRITE_WAIT_MS = 10_000
/** After this many rate-limit responses in a row, nothing retries automatically. */
const MAX_CONSECUTIVE_RATE_LIMITS = 5

/**
 * Every call to GitHub with one credential passes through here: at most five reads at once, writes one at a
 * time and a second apart, nothing during a pause. Source: docs "Best practices for using the REST API".
 *
 * A rate-limit response pauses the credential on all nodes and rejects with `RATE_LIMITED`. The throttle does
 * not wait for the end of the pause: the caller frees its slot and tries again later.
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

  /** Sends as soon as allowed. Resolves to any response that is not a rate limit. */
  async run(
    kind: CallKind,
    signal: AbortSignal,
    send: () => Promise<HttpResponse>,
    { isCreation = false } = {},
  ): Promise<HttpResponse> {
    const { credentialId, rateLimitStore } = this.options
    await this.requireNotPaused()
    if (isCreation) await this.reserveCreation()
    if (kind === 'write') await this.waitForWriteSlot(signal)
    const release = await this.slots[kind].acquire(signal)
    if (release === null) throw new ForgeError('TRANSIENT', 'Too many calls are already waiting for GitHub.')
    try {
      // A pause may have started while this call was waiting.
      const state = await this.requireNotPaused()
      const response = await send()
      const pauseMs = rateLimitPauseMs(response, state.consecutiveRateLimits)
      const isWrite = kind !== 'read'
      if (pauseMs !== null) {
        const limited = await rateLimitStore.recordRateLimit(credentialId, state, { pauseMs, isWrite })
        throw rateLimitedError(limited, response)
      }
      if (response.status < 400) await rateLimitStore.recordSuccess(credentialId, state, isWrite)
      return response
    } finally {
      release()
    }
  }

  private async requireNotPaused(): Promise<RateLimitState> {
    const state = await this.options.rateLimitStore.state(this.options.credentialId)
    if (state.pausedForMs > 0) throw rateLimitedError(state)
    return state
  }

  private async reserveCreation(): Promise<void> {
    const { credentialId, rateLimitStore, maxCreationsPerHour } = this.options
    if (maxCreationsPerHour === null) return
    const { isReserved, waitMs } = await rateLimitStore.reserveCreation(credentialId, maxCreationsPerHour)
    if (!isReserved) {
      throw retryLaterError(
        waitMs,
        `This credential has created ${maxCreationsPerHour} repositories within an hour, close to GitHub's limit.`,
      )
    }
  }

  private async waitForWriteSlot(signal: AbortSignal): Promise<void> {
    const { credentialId, rateLimitStore, writeSpacingMs } = this.options
    if (writeSpacingMs === 0) return
    const slot = await rateLimitStore.reserveWrite(credentialId, writeSpacingMs, MAX_WRITE_WAIT_MS)
    if (!slot.isReserved) {
      throw retryLaterError(slot.waitMs, 'Waiting for a write slot: GitHub allows one write per second.')
    }
    await sleep(slot.waitMs, undefined, { signal }).catch(() => signal.throwIfAborted())
  }
}

function rateLimitedError(state: RateLimitState, response?: HttpResponse): ForgeError {
  const requestId = response?.headers['x-github-request-id']
  const source = { ...(response && { status: response.status }), ...(requestId && { requestId }) }
  if (state.consecutiveRateLimits < MAX_CONSECUTIVE_RATE_LIMITS) {
    return retryLaterError(state.pausedForMs, 'GitHub has rate-limited this credential.', source)
  }
  const until = new Date(Date.now() + state.pausedForMs)
  return new ForgeError(
    'RATE_LIMITED',
    `GitHub has rate-limited this credential ${state.consecutiveRateLimits} times in a row, each time after the requested pause. Use the credential less, or give Shipcast its own; then retry, but not before ${formatTime(until)}.`,
    source,
  )
}

function retryLaterError(
  waitMs: number,
  cause: string,
  source: { status?: number; requestId?: string } = {},
): ForgeError {
  const retryAt = new Date(Date.now() + Math.max(0, waitMs))
  return new ForgeError('RATE_LIMITED', `${cause} Continues automatically at ${formatTime(retryAt)}.`, {
    ...source,
    retryAt,
  })
}

function formatTime(time: Date): string {
  return `${time.toISOString().slice(0, 19).replace('T', ' ')} UTC`
}
