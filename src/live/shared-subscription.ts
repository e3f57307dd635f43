import { Logger } from '@nestjs/common'
import { type ExecutionResult, execute } from 'graphql'
import type { LRUCache } from 'lru-cache'
import type { RequestContext } from '../auth/request-context.ts'
import { includesOrg, type Organizations } from '../auth/rights.ts'
import type { EventFeed } from '../events/event-feed.ts'
import type { LoggedEvent } from '../events/logged-event.ts'
import { toClientResult } from '../graphql/error-formatting.ts'
import type { PreparedArgs } from '../graphql/prepare-operation.ts'
import { Counts } from '../runtime/counts.ts'
import type { DeferredDelivery, ExecutionScheduler } from './execution-scheduler.ts'
import type { LiveMetrics } from './live-metrics.ts'
import type { Subscriber } from './subscriber.ts'
import type { SubscriptionQuotas } from './subscription-quotas.ts'

/** Events that wait for an execution, or for a turn to be executed; beyond it the members read on by themselves. */
const MAX_QUEUED_EVENTS = 1_000

/** The end of an event's `next` message, `…"payload":{…}}`, as bytes; or it is still being made. */
export type EncodedEvent = Uint8Array | Promise<Uint8Array>

/** Executions are shared by all members: there is no one to ask about. */
const SHARED_REQUEST_CONTEXT: RequestContext = {
  subject: { id: 'nobody', name: 'nobody', rights: { role: 'viewer', sees: [], deploysTo: [] } },
  credential: undefined,
  address: 'none',
  connectionId: undefined,
  signal: new AbortController().signal,
}

/** What all groups have together. */
export interface SharedContext {
  feed: EventFeed
  metrics: LiveMetrics
  scheduler: ExecutionScheduler
  quotas: SubscriptionQuotas
  /** Encoded events, kept for a while. */
  encodedEvents: LRUCache<string, EncodedEvent>
  /** Called before live members are sent an event. */
  onDelivery(event: LoggedEvent): void
  /** Called when the last member has left. */
  remove(group: SharedSubscription): void
}

/**
 * All who want the same: each event is executed once and encoded once for all of them. The end of the message is
 * theirs together; the beginning, with the operation's id, is each member's own.
 */
export class SharedSubscription implements DeferredDelivery {
  /** Members that have been sent everything that this group has delivered. */
  readonly liveSubscribers = new Set<Subscriber>()
  private subscriberCount = 0
  /** How many of them are of which subject. */
  private readonly subjectCounts = new Counts()
  private readonly logger = new Logger(SharedSubscription.name)
  private queue: LoggedEvent[] = []

  constructor(
    readonly key: string,
    /** The deployment that it is about; undefined: all of them. */
    readonly deploymentId: string | undefined,
    /** The organizations that all of its members may see. */
    private readonly sees: Organizations,
    private readonly args: PreparedArgs,
    private readonly context: SharedContext,
  ) {}

  get feed(): EventFeed {
    return this.context.feed
  }

  get metrics(): LiveMetrics {
    return this.context.metrics
  }

  /** Where live members are. */
  get position(): number {
    const next = this.queue[0]
    return next ? next.position - 1 : this.feed.head
  }

  get scheduler(): ExecutionScheduler {
    return this.context.scheduler
  }

  get liveCount(): number {
    return this.liveSubscribers.size
  }

  includesSubject(subjectId: string): boolean {
    return this.subjectCounts.get(subjectId) > 0
  }

  add(subjectId: string): void {
    if (!this.includesSubject(subjectId)) this.context.quotas.acquire(subjectId, this.deploymentId)
    this.subjectCounts.add(subjectId)
    this.subscriberCount++
    this.metrics.members.inc()
  }

  remove(member: Subscriber, subjectId: string): void {
    this.liveSubscribers.delete(member)
    this.subjectCounts.remove(subjectId)
    if (!this.includesSubject(subjectId)) this.context.quotas.release(subjectId, this.deploymentId)
    this.subscriberCount--
    this.metrics.members.dec()
    if (this.subscriberCount > 0) return
    this.clearQueue()
    this.context.remove(this)
  }

  /** A new event of what it is about. */
  enqueue(event: LoggedEvent): void {
    if (!includesOrg(this.sees, event.deployment.org)) return
    this.queue.push(event)
    if (this.queue.length > MAX_QUEUED_EVENTS) this.switchToCatchUp()
    else if (this.queue.length === 1) this.deliverQueued()
  }

  /** Delivers what waits, in order, for as long as this turn of the event loop may take. */
  deliverQueued(): void {
    const { queue } = this
    for (let event = queue[0]; event && queue === this.queue; event = queue[0]) {
      if (this.scheduler.isSliceOver) {
        this.scheduler.scheduleDelivery(this)
        return
      }
      try {
        const payload = this.encode(event)
        if (payload instanceof Promise) {
          void this.deliverAfter(payload, event)
          return
        }
        queue.shift()
        this.deliver(event, payload)
      } catch (error) {
        this.onEncodingFailed(error)
      }
    }
  }

  /** What waits is not to be delivered: nobody is left, or it is of a log that is no more. */
  clearQueue(): void {
    this.queue = []
    // Otherwise that turn could come while the first event of the new queue is being executed, and deliver it twice.
    this.scheduler.cancelDelivery(this)
  }

  /** Whether it can be had without an execution. */
  hasEncoded(event: LoggedEvent): boolean {
    return this.context.encodedEvents.has(this.cacheKey(event))
  }

  /** Made once, and kept for a while for those who join or lag. */
  encode(event: LoggedEvent): EncodedEvent {
    const key = this.cacheKey(event)
    const { encodedEvents: encoded } = this.context
    const before = encoded.get(key)
    if (before) return before
    this.metrics.executions.inc()
    const payload = this.scheduler.run(() => this.execute(event))
    encoded.set(key, payload)
    if (payload instanceof Promise) {
      payload.then(
        (bytes) => encoded.set(key, bytes),
        () => encoded.delete(key),
      )
    }
    return payload
  }

  private execute(event: LoggedEvent): EncodedEvent {
    const result = execute({ ...this.args, rootValue: event, contextValue: SHARED_REQUEST_CONTEXT })
    return result instanceof Promise ? result.then(encodeResult) : encodeResult(result)
  }

  /** The link tells events of one position apart, of which there are two when the database has lost one. */
  private cacheKey({ position, eventId: link }: LoggedEvent): string {
    return `${position} ${link} ${this.key}`
  }

  private deliver(event: LoggedEvent, payload: Uint8Array): void {
    if (this.liveSubscribers.size === 0) return
    this.context.onDelivery(event)
    this.metrics.deliveries.inc(this.liveSubscribers.size)
    this.metrics.sentBytes.inc(this.liveSubscribers.size * payload.byteLength)
    for (const member of this.liveSubscribers) member.send(event, payload)
  }

  /** The queue is given up when it has become too long meanwhile. */
  private async deliverAfter(encoding: Promise<Uint8Array>, event: LoggedEvent): Promise<void> {
    const { queue } = this
    try {
      const payload = await encoding
      if (queue !== this.queue) return
      queue.shift()
      this.deliver(event, payload)
    } catch (error) {
      if (queue !== this.queue) return
      this.onEncodingFailed(error)
    }
    this.deliverQueued()
  }

  /** Each member is told, as soon as it comes to what cannot be encoded. */
  private onEncodingFailed(error: unknown): void {
    this.logger.error('An event could not be encoded', { error })
    this.switchToCatchUp()
  }

  private switchToCatchUp(): void {
    const { position } = this
    this.clearQueue()
    const members = [...this.liveSubscribers]
    this.liveSubscribers.clear()
    for (const member of members) member.catchUpFrom(position)
  }
}

const encoder = new TextEncoder()

function encodeResult(result: ExecutionResult): Uint8Array {
  // Bytes of their own: a buffer from Node's pool would keep a slab of it alive for as long as this is kept.
  return encoder.encode(`,"type":"next","payload":${JSON.stringify(toClientResult(result))}}`)
}
