import { setTimeout as sleep } from 'node:timers/promises'
import { includesOrg, type Organizations } from '../auth/rights.ts'
import { DatabaseUnavailableError } from '../database/errors.ts'
import type { EventFeed } from './event-feed.ts'
import type { LoggedEvent } from './logged-event.ts'

/** While the database is away, readers of older events wait; they keep their place. */
const DATABASE_RETRY_MS = 500

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
export class EventIterator implements AsyncIterableIterator<LoggedEvent> {
  private readonly ended = new AbortController()
  private batch: LoggedEvent[] = []
  private position: number | undefined
  private readonly logId: number

  constructor(
    private readonly feed: EventFeed,
    private readonly filter: EventFilter,
  ) {
    this.position = filter.position
    this.logId = feed.logId
  }

  [Symbol.asyncIterator](): this {
    return this
  }

  async next(): Promise<IteratorResult<LoggedEvent>> {
    while (this.batch.length === 0 && !this.ended.signal.aborted) {
      try {
        await this.fillBatch()
      } catch (error) {
        if (this.ended.signal.aborted) break
        if (!(error instanceof DatabaseUnavailableError)) {
          this.end()
          throw error
        }
        await sleep(DATABASE_RETRY_MS, undefined, { signal: this.ended.signal }).catch(() => undefined)
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

  private async fillBatch(): Promise<void> {
    const { deploymentId } = this.filter.options
    if (this.feed.logId !== this.logId) this.end()
    else if (this.position === undefined) {
      const now = await this.feed.snapshot(deploymentId)
      this.position = now.until
      this.batch = now.events.filter((event) => this.filter.isInScope(event))
    } else if (this.position < this.feed.head) {
      const stretch = await this.feed.readAfter(this.position, deploymentId)
      this.position = stretch.until
      this.batch = stretch.events.filter((event) => this.filter.matches(event))
    } else {
      await this.feed.after(this.position, this.ended.signal)
    }
  }
}

export interface EventFilterOptions {
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
export class EventFilter implements AsyncIterable<LoggedEvent> {
  constructor(
    private readonly feed: EventFeed,
    readonly options: EventFilterOptions,
    /** Events after this position; undefined: the state now, then what follows. */
    readonly position: number | undefined,
  ) {}

  [Symbol.asyncIterator](): EventIterator {
    return new EventIterator(this.feed, this)
  }

  matches(event: LoggedEvent): boolean {
    return this.isInScope(event) && !this.isEcho(event)
  }

  /** Whether it is of what was asked for, and may be seen. */
  isInScope({ deploymentId, deployment }: LoggedEvent): boolean {
    const { sees, deploymentId: one } = this.options
    return (one === undefined || deploymentId === one) && includesOrg(sees, deployment.org)
  }

  /** Whether the event is the news of the very request that this connection made. */
  isEcho(event: LoggedEvent): boolean {
    return event.sequence === 1 && event.origin !== null && event.origin === this.options.origin
  }
}
