import { setTimeout as sleep } from 'node:timers/promises'
import { DatabaseUnavailable } from '../database/database-unavailable.ts'
import type { EventFeed } from './event-feed.ts'
import type { EventLog } from './event-log.ts'
import type { LoggedEvent } from './logged-event.ts'

const BATCH_EVENTS = 100
/** While the database is away, readers of older events wait; they keep their place. */
const DATABASE_PAUSE_MS = 500

export interface FollowOptions {
  /** Only this deployment's events; otherwise everybody's. */
  deploymentId?: string | undefined
  /** This connection's own first events are left out: the answer to its request told it already. */
  connectionId?: string | undefined
}

/**
 * One reader of the log. It keeps nothing but a position and a small batch, however slow its consumer is.
 *
 *   no position given ──> the state now, up to the head at the start (`catching up` below it)
 *   position given    ──────────────────────> events after the position: from memory, else from the log
 *   at the head       ──> waits for the feed
 *
 * Written by hand because `return()` must end a pending `next()` at once; an async generator would queue behind it.
 */
export class Follower implements AsyncIterableIterator<LoggedEvent> {
  private readonly ended = new AbortController()
  private batch: LoggedEvent[] = []
  private position: number
  /** While the state now is being told: the position that it stands for. */
  private nowUntil: number | undefined

  constructor(
    private readonly feed: EventFeed,
    private readonly log: EventLog,
    private readonly options: FollowOptions & { position?: number },
  ) {
    this.position = options.position ?? 0
    if (options.position === undefined) this.nowUntil = feed.head
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

  private fill(): Promise<void> {
    if (this.nowUntil !== undefined) return this.readNow(this.nowUntil)
    if (this.position < this.feed.head) return this.readOn()
    return this.feed.after(this.position, this.ended.signal)
  }

  private async readNow(until: number): Promise<void> {
    const { deploymentId } = this.options
    const current = await this.log.readCurrent({
      deploymentId,
      after: this.position,
      until,
      limit: BATCH_EVENTS,
    })
    const last = current.at(-1)
    if (!last || deploymentId || current.length < BATCH_EVENTS) {
      this.position = until
      this.nowUntil = undefined
    } else {
      this.position = last.position
    }
    this.batch = current
  }

  private async readOn(): Promise<void> {
    const { deploymentId } = this.options
    const { head } = this.feed
    const recent = this.feed.recentAfter(this.position, BATCH_EVENTS)
    const events =
      recent ?? (await this.log.read({ position: this.position, deploymentId, limit: BATCH_EVENTS }))
    const last = events.at(-1)?.position ?? head
    // A read that came back short has seen all up to the head before it; it may hold more than that, which is fine.
    this.position = events.length < BATCH_EVENTS ? Math.max(head, last) : last
    this.batch = events.filter((event) => this.wants(event))
  }

  private wants(event: LoggedEvent): boolean {
    const { deploymentId, connectionId } = this.options
    if (deploymentId && event.deploymentId !== deploymentId) return false
    const isEcho = event.sequence === 1 && event.origin !== null && event.origin === connectionId
    return !isEcho
  }
}
