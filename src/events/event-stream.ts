import { setTimeout as sleep } from 'node:timers/promises'
import { DatabaseUnavailableError } from '../database/errors.ts'
import type { EventSource, OrderedEvent } from './event-source.ts'

/** Iterators keep their position while the database is unavailable. */
const DATABASE_RETRY_MS = 500

/**
 * What one subscription receives: the events of a source after a position, without end. Iterating it reads
 * them; the fan-out instead serves all streams of equal sources together.
 */
export class EventStream<Event extends OrderedEvent = OrderedEvent> implements AsyncIterable<Event> {
  constructor(
    readonly source: EventSource<Event>,
    /** Events after this position; undefined: the current state, then what follows. */
    readonly position: number | undefined,
    private readonly origin?: string | undefined,
  ) {}

  [Symbol.asyncIterator](): EventIterator<Event> {
    return new EventIterator(this)
  }

  /** Whether a request of this connection caused the event; the response contained it. */
  isEcho({ origin }: OrderedEvent): boolean {
    return origin !== null && origin === this.origin
  }
}

/**
 * Reads a stream. Keeps only a position and a small batch, however slow its consumer is.
 *
 *   no position      ──> the current state
 *   behind the head  ──> events after the position
 *   at the head      ──> waits
 *   another log      ──> ends
 *
 * Written by hand because `return()` must end a pending `next()` at once; an async generator would queue
 * behind it.
 */
class EventIterator<Event extends OrderedEvent = OrderedEvent> implements AsyncIterableIterator<Event> {
  private readonly abortController = new AbortController()
  private batch: Event[] = []
  private position: number | undefined
  private readonly logId: number

  constructor(private readonly stream: EventStream<Event>) {
    this.position = stream.position
    this.logId = stream.source.logId
  }

  [Symbol.asyncIterator](): this {
    return this
  }

  async next(): Promise<IteratorResult<Event>> {
    const { signal } = this.abortController
    while (this.batch.length === 0 && !signal.aborted) {
      try {
        await this.fillBatch()
      } catch (error) {
        if (signal.aborted) break
        if (!(error instanceof DatabaseUnavailableError)) {
          this.end()
          throw error
        }
        await sleep(DATABASE_RETRY_MS, undefined, { signal }).catch(() => undefined)
      }
    }
    const event = this.batch.shift()
    return event && !signal.aborted ? { done: false, value: event } : { done: true, value: undefined }
  }

  return(): Promise<IteratorResult<Event>> {
    this.end()
    return Promise.resolve({ done: true, value: undefined })
  }

  private end(): void {
    this.abortController.abort()
    this.batch = []
  }

  private async fillBatch(): Promise<void> {
    const { source } = this.stream
    if (source.logId !== this.logId) this.end()
    else if (this.position === undefined) {
      const { events, until } = await source.snapshot()
      this.position = until
      this.batch = [...events]
    } else if (this.position < source.head) {
      const { events, until } = await source.readAfter(this.position)
      this.position = until
      this.batch = events.filter((event) => !this.stream.isEcho(event))
    } else {
      await source.waitForEventAfter(this.position, this.abortController.signal)
    }
  }
}
