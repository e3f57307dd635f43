import { setTimeout as sleep } from 'node:timers/promises'
import { includesOrg, type Organizations } from '../auth/rights.ts'
import { DatabaseUnavailable } from '../database/database-errors.ts'
import type { EventFeed } from './event-feed.ts'
import type { LoggedEvent } from './logged-event.ts'

/** While the database is away, readers of older events wait; they keep their place. */
const DATABASE_PAUSE_MS = 500

/**
 * One reader of the log. It keeps nothing but a position and a small batch, however slow its consumer is.
 *
 *   no position given ──> the state now
 *   position given    ──────────────────> events after the position: from memory, else from the log
 *   at the head       ──> waits for the feed
 *   the log has lost what was told ──> the end
 *
 * Written by hand because `return()` must end a pending `next()` at once; an async generator would queue behind it.
 */
export class Follower implements AsyncIterableIterator<LoggedEvent> {
  private readonly ended = new AbortController()
  private batch: LoggedEvent[] = []
  private position: number | undefined
  private readonly logId: number

  constructor(
    private readonly feed: EventFeed,
    private readonly request: FollowRequest,
  ) {
    this.position = request.position
    this.logId = feed.logId
  }

  [Symbol.asyncIterator](): this {
    return this
  }

  async next(): Promise<IteratorResult<LoggedEvent>> {
    while (this.batch.length === 0 && !this.ended.signal.aborted) {
      try {
        await this.fill()
      } catch (error) {
        if (this.ended.signal.aborted) break
        if (!(error instanceof DatabaseUnavailable)) {
          this.end()
          throw error
        }
        await sleep(DATABASE_PAUSE_MS, undefined, { signal: this.ended.signal }).catch(() => undefined)
      }
    }
    const event = this.batch.shift()
    return event && !this.ended.signal.aborted
      ? { done: false, value: event }
      : { done: true, value: undefined }
  }

  return(): Promise<IteratorResult<LoggedEvent>> {
    this.end()
    return Promise.resolve({ done: true, value: undefined })
  }

  private end(): void {
    this.ended.abort()
    this.batch = []
  }

  private async fill(): Promise<void> {
    const { deploymentId } = this.request.options
    if (this.feed.logId !== this.logId) this.end()
    else if (this.position === undefined) {
      const now = await this.feed.current(deploymentId)
      this.position = now.until
      this.batch = now.events.filter((event) => this.request.isAbout(event))
    } else if (this.position < this.feed.head) {
      const stretch = await this.feed.since(this.position, deploymentId)
      this.position = stretch.until
      this.batch = stretch.events.filter((event) => this.request.wants(event))
    } else {
      await this.feed.after(this.position, this.ended.signal)
    }
  }
}

export interface FollowOptions {
  /** The organizations whose deployments the follower may see. */
  sees: Organizations
  /** Only this deployment's events; otherwise everybody's. */
  deploymentId?: string | undefined
  /** The first events that come from here are left out: the answer to the request told them already. */
  origin?: string | undefined
}

/**
 * What somebody wants to follow, authorised and checked. Iterated, it is a `Follower` of its own; the fan-out
 * instead serves all requests for the same from one place.
 */
export class FollowRequest implements AsyncIterable<LoggedEvent> {
  constructor(
    private readonly feed: EventFeed,
    readonly options: FollowOptions,
    /** Events after this position; undefined: the state now, then what follows. */
    readonly position: number | undefined,
  ) {}

  [Symbol.asyncIterator](): Follower {
    return new Follower(this.feed, this)
  }

  wants(event: LoggedEvent): boolean {
    return this.isAbout(event) && !this.isEcho(event)
  }

  /** Whether it is of what was asked for, and may be seen. */
  isAbout({ deploymentId, deployment }: LoggedEvent): boolean {
    const { sees, deploymentId: one } = this.options
    return (one === undefined || deploymentId === one) && includesOrg(sees, deployment.org)
  }

  /** Whether the event is the news of the very request that this connection made. */
  isEcho(event: LoggedEvent): boolean {
    return event.sequence === 1 && event.origin !== null && event.origin === this.options.origin
  }
}
