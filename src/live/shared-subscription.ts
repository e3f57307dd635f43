import { Logger } from '@nestjs/common'
import { type ExecutionResult, execute } from 'graphql'
import { LRUCache } from 'lru-cache'
import type { RequestContext } from '../auth/principal.ts'
import type { EventSource, OrderedEvent } from '../events/event-stream.ts'
import { toClientResult } from '../graphql/error-formatting.ts'
import type { PreparedArgs } from '../graphql/prepare-operation.ts'
import { Counts } from '../runtime/counts.ts'
import type { DeferredDelivery, ExecutionScheduler } from './execution-scheduler.ts'
import type { LiveMetrics } from './live-metrics.ts'
import type { SubscriptionQuotas } from './subscription-quotas.ts'

/**
 * Events that wait for their execution; beyond this many, each subscriber catches up from its own position.
 */
const MAX_QUEUED_EVENTS = 1_000
const MAX_CACHED_BYTES = 64 * 1024 * 1024
/** What a cached event takes in addition to its bytes: its key, its entry, the objects around the bytes. */
const CACHE_ENTRY_OVERHEAD_BYTES = 400

/**
 * The suffix of an event's `next` message, `…"payload":{…}}`, as bytes; a promise while it is being executed.
 */
export type EncodedEvent = Uint8Array | Promise<Uint8Array>

/** Encoded events of all shared subscriptions, for subscribers that join or catch up. */
export class EncodedEventCache extends LRUCache<string, EncodedEvent> {
  constructor() {
    super({
      maxSize: MAX_CACHED_BYTES,
      sizeCalculation: (encoded) =>
        CACHE_ENTRY_OVERHEAD_BYTES + (encoded instanceof Promise ? 0 : encoded.byteLength),
    })
  }
}

/** The collaborators that all shared subscriptions use. */
export interface SharedContext {
  metrics: LiveMetrics
  scheduler: ExecutionScheduler
  encodedEvents: EncodedEventCache
  quotas: SubscriptionQuotas
  /** Called before an event is sent to live subscribers. */
  onDelivery(event: OrderedEvent): void
  /** Called when the last subscriber has left. */
  onEnd(subscription: SharedSubscription): void
}

/** A subscriber that has been sent everything that the shared subscription has delivered. */
export interface LiveSubscriber {
  /** Sends the next event. */
  send(event: OrderedEvent, encoded: Uint8Array): void
  /** The subscriber is no longer live: it reads the events after `position` from the source. */
  catchUpFrom(position: number): void
}

/** Subscribers share executions, so no resolver below the subscription field may depend on their identity. */
const SHARED_REQUEST_CONTEXT: RequestContext = {
  subject: { id: 'nobody', name: 'nobody', rights: { role: 'viewer', sees: [], deploysTo: [] } },
  credential: undefined,
  address: 'none',
  connectionId: undefined,
  signal: new AbortController().signal,
}

/**
 * One operation on one source, for all its subscribers: each event is executed once and encoded once.
 * Subscribers share the suffix of the `next` message; each has its own prefix, with the operation's id.
 */
export class SharedSubscription implements DeferredDelivery {
  readonly liveSubscribers = new Set<LiveSubscriber>()
  readonly scheduler: ExecutionScheduler
  readonly metrics: LiveMetrics
  private readonly logger = new Logger(SharedSubscription.name)
  private readonly logId: number
  private readonly unsubscribe: () => void
  private readonly subscriberCounts = new Counts()
  private queue: OrderedEvent[] = []

  constructor(
    readonly key: string,
    readonly source: EventSource,
    private readonly args: PreparedArgs,
    private readonly context: SharedContext,
  ) {
    this.scheduler = context.scheduler
    this.metrics = context.metrics
    this.logId = source.logId
    this.unsubscribe = source.onEvent((event) => this.enqueue(event))
  }

  /** The position up to which live subscribers have been sent all events. */
  get position(): number {
    const next = this.queue[0]
    return next ? next.position - 1 : this.source.head
  }

  get liveCount(): number {
    return this.liveSubscribers.size
  }

  includesSubject(subjectId: string): boolean {
    return this.subscriberCounts.get(subjectId) > 0
  }

  /** Counts one more subscriber of a subject. */
  addSubject(subjectId: string): void {
    if (!this.includesSubject(subjectId)) this.context.quotas.acquire(subjectId, this.source.topic)
    this.subscriberCounts.add(subjectId)
    this.metrics.subscribers.inc()
  }

  remove(subscriber: LiveSubscriber, subjectId: string): void {
    this.liveSubscribers.delete(subscriber)
    this.subscriberCounts.remove(subjectId)
    if (!this.includesSubject(subjectId)) this.context.quotas.release(subjectId, this.source.topic)
    this.metrics.subscribers.dec()
    if (this.subscriberCounts.size > 0) return
    this.unsubscribe()
    this.clearQueue()
    this.context.onEnd(this)
  }

  /** Delivers the queued events in order, until the slice is over. */
  deliverQueued(): void {
    const { queue } = this
    for (let event = queue[0]; event && queue === this.queue; event = queue[0]) {
      if (this.scheduler.isSliceOver) {
        this.scheduler.scheduleDelivery(this)
        return
      }
      try {
        const encoded = this.encode(event)
        if (encoded instanceof Promise) {
          void this.deliverAfter(encoded, event)
          return
        }
        queue.shift()
        this.deliver(event, encoded)
      } catch (error) {
        this.onEncodingFailed(error)
      }
    }
  }

  /** Whether `encode` needs no execution. */
  hasEncoded(event: OrderedEvent): boolean {
    return this.context.encodedEvents.has(this.cacheKey(event))
  }

  /** Executes and encodes an event, once. */
  encode(event: OrderedEvent): EncodedEvent {
    const key = this.cacheKey(event)
    const { encodedEvents } = this.context
    const cached = encodedEvents.get(key)
    if (cached) return cached
    this.metrics.executions.inc()
    const encoded = this.scheduler.run(() => this.execute(event))
    encodedEvents.set(key, encoded)
    if (encoded instanceof Promise) {
      encoded.then(
        (bytes) => encodedEvents.set(key, bytes),
        () => encodedEvents.delete(key),
      )
    }
    return encoded
  }

  private enqueue(event: OrderedEvent): void {
    // The event belongs to another log: the sockets of these subscribers are closing.
    if (this.source.logId !== this.logId) return
    this.queue.push(event)
    if (this.queue.length > MAX_QUEUED_EVENTS) this.switchToCatchUp()
    else if (this.queue.length === 1) this.deliverQueued()
  }

  private execute(event: OrderedEvent): EncodedEvent {
    const result = execute({ ...this.args, rootValue: event, contextValue: SHARED_REQUEST_CONTEXT })
    return result instanceof Promise ? result.then(encodeResult) : encodeResult(result)
  }

  /** Includes the event's id, since a database that has lost events assigns their positions again. */
  private cacheKey({ position, eventId }: OrderedEvent): string {
    return `${position} ${eventId} ${this.key}`
  }

  private deliver(event: OrderedEvent, encoded: Uint8Array): void {
    if (this.liveSubscribers.size === 0) return
    this.context.onDelivery(event)
    this.metrics.deliveries.inc(this.liveSubscribers.size)
    this.metrics.sentBytes.inc(this.liveSubscribers.size * encoded.byteLength)
    for (const subscriber of this.liveSubscribers) subscriber.send(event, encoded)
  }

  /** Does nothing if the queue was cleared before the encoding resolved. */
  private async deliverAfter(encoding: Promise<Uint8Array>, event: OrderedEvent): Promise<void> {
    const { queue } = this
    try {
      const encoded = await encoding
      if (queue !== this.queue) return
      queue.shift()
      this.deliver(event, encoded)
    } catch (error) {
      if (queue !== this.queue) return
      this.onEncodingFailed(error)
    }
    this.deliverQueued()
  }

  /** Each subscriber then fails separately, when it catches up to the event that cannot be encoded. */
  private onEncodingFailed(error: unknown): void {
    this.logger.error('Could not encode an event', { error })
    this.switchToCatchUp()
  }

  private switchToCatchUp(): void {
    const { position } = this
    this.clearQueue()
    const subscribers = [...this.liveSubscribers]
    this.liveSubscribers.clear()
    for (const subscriber of subscribers) subscriber.catchUpFrom(position)
  }

  private clearQueue(): void {
    this.queue = []
    // A delivery still scheduled could run while the first event of the new queue is executed, and deliver it
    // twice.
    this.scheduler.cancelDelivery(this)
  }
}

const encoder = new TextEncoder()

function encodeResult(result: ExecutionResult): Uint8Array {
  // Not a Buffer: one from Node's pool would keep a whole slab alive for as long as it is cached.
  return encoder.encode(`,"type":"next","payload":${JSON.stringify(toClientResult(result))}}`)
}
