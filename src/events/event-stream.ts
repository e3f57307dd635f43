import { setTimeout as sleep } from 'node:timers/promises'
import { applyDecorators } from '@nestjs/common'
import { Extensions, type ReturnTypeFunc, Subscription, type SubscriptionOptions } from '@nestjs/graphql'
import type { GraphQLField } from 'graphql'
import { DatabaseUnavailableError } from '../database/errors.ts'

/** An event with a place in an ordered source. */
export interface OrderedEvent {
  /** Ascends within the source; subscribers resume after a position. */
  readonly position: number
  /** Identifies the event together with its position, which is reused if the database loses the event. */
  readonly eventId: number
  /** When the event was committed, by the database's clock. */
  readonly at: Date
  /** The connection whose request caused the event, and which does not receive it. */
  readonly origin: string | null
}

/** All events after the requested position, up to and including `until`. */
export interface EventBatch<Event extends OrderedEvent = OrderedEvent> {
  readonly events: readonly Event[]
  readonly until: number
}

/**
 * An ordered sequence of events that subscribers share and resume, such as those of all deployments that a
 * subject can see, or of one deployment. Authorization has decided what it contains.
 */
export interface EventSource<Event extends OrderedEvent = OrderedEvent> {
  /** Sources with equal keys contain the same events. */
  readonly key: string
  /** The subject of the events, for quotas: an id, or the name of a whole kind. */
  readonly topic: string
  /** Identifies the log; when it changes, the log has lost events and earlier positions are void. */
  readonly logId: number
  /** Position of the newest event that this node has seen. */
  readonly head: number
  /** The current state, as events in ascending order; `until` is the head. */
  snapshot(): EventBatch<Event> | Promise<EventBatch<Event>>
  /** All events after the position, or the first of them; not as a promise if they are in memory. */
  readAfter(position: number): EventBatch<Event> | Promise<EventBatch<Event>>
  /** Resolves once `head` is beyond the position or `logId` has changed; rejects with the signal's reason. */
  waitForEventAfter(position: number, signal: AbortSignal): Promise<void>
  /** Calls the listener for each event as `head` reaches it. Returns a function that removes the listener. */
  onEvent(listener: (event: Event) => void): () => void
}

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

/** In the extensions of a subscription field: its resolver returns an `EventStream`. */
export const EVENT_SUBSCRIPTION = 'eventSubscription'

type EventSubscriptionDecorator = <Resolver extends (...args: never[]) => Promise<EventStream>>(
  target: object,
  name: string,
  descriptor: TypedPropertyDescriptor<Resolver>,
) => void

/**
 * Nest's `@Subscription`, for resolvers that return an `EventStream`. All subscriptions are declared with it.
 */
export function EventSubscription(
  type: ReturnTypeFunc,
  options: SubscriptionOptions,
): EventSubscriptionDecorator {
  return applyDecorators(Subscription(type, options), Extensions({ [EVENT_SUBSCRIPTION]: true }))
}

export function isEventSubscription({ extensions }: GraphQLField<unknown, unknown>): boolean {
  return extensions[EVENT_SUBSCRIPTION] === true
}
