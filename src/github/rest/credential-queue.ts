import { setTimeout as sleep } from 'node:timers/promises'
import { BoundedSlots } from '../../runtime/bounded-slots.ts'
import { GitHubError } from '../github-error.ts'
import type { CredentialPauses, CredentialState } from './credential-pauses.ts'
import { rateLimitOf } from './rate-limit.ts'
import type { HttpAnswer } from './transport.ts'

/** - `read`, `write`: the REST and GraphQL API · `push`: git, which has no budget in common with them but the pauses */
export type CallKind = 'read' | 'write' | 'push'

export interface QueueOptions {
  credentialId: string
  pauses: CredentialPauses
  /** Milliseconds between two writes, over all nodes. 0: only one after the other on each node. */
  writeSpacingMs: number
  /** Repositories an hour; null: as many as are asked for. */
  mostCreationsAnHour: number | null
  /** Names the credential's owner's clock for people: now + so many milliseconds. */
  now?: () => number
}

const READS_AT_ONCE = 5
const PUSHES_AT_ONCE = 2
const MOST_WAITING = 2_000
/** Whoever would have to wait longer for its turn to write gives its place free meanwhile. */
const LONGEST_TURN_WAIT_MS = 10_000
/** Rate-limit answers in a row, after which nothing waits by itself any more. */
export const MOST_STRIKES = 5

/**
 * All that a credential asks of GitHub goes through here: reads at most five at once, writes one after the other and a
 * second apart, nothing at all during a pause. So GitHub wants it: docs "Best practices for using the REST API".
 *
 * An answer that says "too many requests" pauses the credential for everybody, on all nodes, and rejects with
 * `RATE_LIMITED`. It is not waited here: the runner gives the place free.
 */
export class CredentialQueue {
  readonly #options: QueueOptions
  readonly #slots = {
    read: new BoundedSlots(READS_AT_ONCE, MOST_WAITING),
    write: new BoundedSlots(1, MOST_WAITING),
    push: new BoundedSlots(PUSHES_AT_ONCE, MOST_WAITING),
  }

  constructor(options: QueueOptions) {
    this.#options = options
  }

  /** Sends when it may be sent. Resolves to any answer but "too many requests". */
  async run(
    kind: CallKind,
    signal: AbortSignal,
    send: () => Promise<HttpAnswer>,
    { isCreation = false } = {},
  ): Promise<HttpAnswer> {
    const { credentialId, pauses } = this.#options
    await this.#stateUnlessPaused()
    if (isCreation) await this.#takeCreation()
    if (kind === 'write') await this.#takeTurn(signal)
    const leave = await this.#slots[kind].enter(signal)
    if (leave === null) throw new GitHubError('TRANSIENT', 'Too many calls wait for GitHub already.')
    try {
      // Somebody may have been told to pause while this one waited.
      const seen = await this.#stateUnlessPaused()
      const answer = await send()
      const limit = rateLimitOf(answer, seen.strikes)
      const isWrite = kind !== 'read'
      if (limit === null) {
        if (answer.status < 400) await pauses.succeed(credentialId, seen, isWrite)
        return answer
      }
      const state = await pauses.strike(credentialId, seen, { pauseMs: limit.pauseMs, isWrite })
      throw this.#limited(state, answer)
    } finally {
      leave()
    }
  }

  async #stateUnlessPaused(): Promise<CredentialState> {
    const state = await this.#options.pauses.state(this.#options.credentialId)
    if (state.pausedForMs > 0) throw this.#limited(state)
    return state
  }

  async #takeTurn(signal: AbortSignal): Promise<void> {
    const { credentialId, pauses, writeSpacingMs } = this.#options
    if (writeSpacingMs === 0) return
    const { isReserved, waitMs } = await pauses.takeTurn(credentialId, writeSpacingMs, LONGEST_TURN_WAIT_MS)
    if (!isReserved) {
      throw this.#comeBack(
        waitMs,
        'So many repositories are being created that this one has to wait its turn.',
      )
    }
    await sleep(waitMs, undefined, { signal }).catch(() => signal.throwIfAborted())
  }

  async #takeCreation(): Promise<void> {
    const { credentialId, pauses, mostCreationsAnHour: most } = this.#options
    if (most === null) return
    const { isReserved, waitMs } = await pauses.takeCreation(credentialId, most)
    if (!isReserved) {
      throw this.#comeBack(
        waitMs,
        `${most} repositories have been created within the hour, which is as many as GitHub lets a credential create without harm.`,
      )
    }
  }

  #limited(state: CredentialState, answer?: HttpAnswer): GitHubError {
    const facts = answer && {
      status: answer.status,
      ...(answer.headers['x-github-request-id'] && { requestId: answer.headers['x-github-request-id'] }),
    }
    if (state.strikes < MOST_STRIKES) {
      return this.#comeBack(
        state.pausedForMs,
        'GitHub takes no more requests of this credential for a while (rate limit).',
        facts,
      )
    }
    const until = new Date(this.#now() + state.pausedForMs)
    return new GitHubError(
      'RATE_LIMITED',
      `GitHub has limited this credential ${state.strikes} times in a row, each time after the pause that it asked for. Ask less of it, or give Shipcast a credential of its own; then retry, not before ${clock(until)}.`,
      facts,
    )
  }

  #comeBack(waitMs: number, why: string, facts: { status?: number; requestId?: string } = {}): GitHubError {
    const retryAt = new Date(this.#now() + Math.max(0, waitMs))
    return new GitHubError('RATE_LIMITED', `${why} This goes on by itself at ${clock(retryAt)}.`, {
      ...facts,
      retryAt,
    })
  }

  #now(): number {
    return (this.#options.now ?? Date.now)()
  }
}

function clock(time: Date): string {
  return `${time.toISOString().slice(0, 19).replace('T', ' ')} UTC`
}
