import { Injectable, type OnModuleInit } from '@nestjs/common'
import { LRUCache } from 'lru-cache'
import { RateLimitedError } from '../errors.ts'
import { EventFeed } from '../events/event-feed.ts'
import type { OrderedEvent } from '../events/event-source.ts'
import type { EventStream } from '../events/event-stream.ts'
import type { PreparedArgs } from '../graphql/prepare-operation.ts'
import { ExecutionScheduler } from './execution-scheduler.ts'
import { LiveMetrics } from './live-metrics.ts'
import { type EncodedEvent, type SharedContext, SharedSubscription } from './shared-subscription.ts'
import { Subscriber, type SubscriberSocket } from './subscriber.ts'
import { SubscriptionQuotas } from './subscription-quotas.ts'

const MAX_SHARED_SUBSCRIPTIONS = 10_000
/** Encoded events kept for those who join or lag, of all groups together. */
const MAX_CACHED_BYTES = 64 * 1024 * 1024
/** What keeping one takes beside its bytes: its key, its place, the objects around the bytes. */
const CACHE_ENTRY_OVERHEAD_BYTES = 400

/** What all members of a group share: everything that decides what they are told, and nothing else. */
export interface SharedOperation {
  /** Names what is executed, and with which values. */
  key: string
  args: PreparedArgs
}

/**
 * Events to viewers: executed once, encoded once for all who want the same, however many they are.
 *
 *   feed ──> groups that want the event ──> one execution, one encoding ──> every live member's socket
 *
 * The resolver has run for each of them before: what a viewer may see was decided there, and is part of what makes a
 * group. It comes from what was authorised, never from what a viewer sent.
 */
@Injectable()
export class FanOut implements OnModuleInit {
  private readonly subscriptions = new Map<string, SharedSubscription>()
  private readonly quotas = new SubscriptionQuotas()
  private readonly context: SharedContext
  /** Position of the newest event that somebody was sent as it happened. */
  private lastDeliveredPosition = 0

  constructor(
    private readonly feed: EventFeed,
    private readonly metrics: LiveMetrics,
  ) {
    const encoded = new LRUCache<string, EncodedEvent>({
      maxSize: MAX_CACHED_BYTES,
      sizeCalculation: (payload) =>
        CACHE_ENTRY_OVERHEAD_BYTES + (payload instanceof Promise ? 0 : payload.byteLength),
    })
    this.context = {
      metrics,
      scheduler: new ExecutionScheduler(),
      quotas: this.quotas,
      encodedEvents: encoded,
      onDelivery: (event) => this.observeLatency(event),
      remove: (group) => this.end(group),
    }
  }

  onModuleInit(): void {
    this.feed.onLogRotated(() => this.reset())
  }

  /** Adds a subscription to those who want the same. The member is to be begun. */
  subscribe(
    operationId: string,
    shared: SharedOperation,
    stream: EventStream,
    viewer: SubscriberSocket,
  ): Subscriber | RateLimitedError {
    const { subject } = viewer
    const key = `${stream.source.key} ${shared.key}`
    let group = this.subscriptions.get(key)
    if (!group?.includesSubject(subject.id)) {
      const refusal = this.quotas.rejectionReason(subject, stream.source.topic)
      if (refusal !== undefined) return this.reject('share', refusal)
    }
    if (!group) {
      if (this.subscriptions.size >= MAX_SHARED_SUBSCRIPTIONS) {
        return this.reject(
          'groups',
          `This node has ${MAX_SHARED_SUBSCRIPTIONS} different subscriptions open. Ask for the same fields as others do, or connect to another node.`,
        )
      }
      group = this.create(key, shared, stream)
    }
    group.add(subject.id)
    return new Subscriber(operationId, stream, group, viewer)
  }

  private reject(reason: string, sentence: string): RateLimitedError {
    this.metrics.refusals.inc({ reason })
    return new RateLimitedError(sentence)
  }

  /** Once for each event, before its first write. */
  private observeLatency({ position, at }: OrderedEvent): void {
    if (position <= this.lastDeliveredPosition) return
    this.lastDeliveredPosition = position
    this.metrics.commitToSocketSeconds.observe(Math.max(0, Date.now() - at.getTime()) / 1000)
  }

  /** All sockets are being closed, and events of the same positions will follow. */
  private reset(): void {
    this.context.encodedEvents.clear()
    this.lastDeliveredPosition = 0
    for (const group of this.subscriptions.values()) group.clearQueue()
  }

  private create(key: string, { args }: SharedOperation, { source }: EventStream): SharedSubscription {
    const group = new SharedSubscription(key, source, args, this.context)
    this.subscriptions.set(key, group)
    this.metrics.groups.inc()
    return group
  }

  private end(group: SharedSubscription): void {
    this.subscriptions.delete(group.key)
    this.metrics.groups.dec()
  }
}
