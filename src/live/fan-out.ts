import { Injectable } from '@nestjs/common'
import type { GraphQLSchema } from 'graphql'
import { RateLimitedError } from '../errors.ts'
import { EventStream, isEventSubscription, type OrderedEvent } from '../events/event-stream.ts'
import type { PreparedArgs } from '../graphql/prepare-operation.ts'
import { ExecutionScheduler } from './execution-scheduler.ts'
import { LiveMetrics } from './live-metrics.ts'
import { EncodedEventCache, type SharedContext, SharedSubscription } from './shared-subscription.ts'
import { Subscriber, type SubscriberSocket } from './subscriber.ts'
import { SubscriptionQuotas } from './subscription-quotas.ts'

const MAX_SHARED_SUBSCRIPTIONS = 10_000

/** What is executed for every event, with which variables. */
export interface SharedOperation {
  /** Equal for operations that encode every event alike. */
  key: string
  args: PreparedArgs
}

/**
 * Delivers the events of ordered sources: each event is executed once and encoded once for all subscribers
 * that share a subscription.
 *
 *   source ──event──> shared subscriptions ──> one execution, one encoding ──> the sockets of all live subscribers
 *
 * Equal operations on equal sources share a subscription. The resolver has already run for each subscriber:
 * it has decided what the subscriber can see, which is part of the source's key.
 */
@Injectable()
export class FanOut {
  private readonly subscriptions = new Map<string, SharedSubscription>()
  private readonly quotas = new SubscriptionQuotas()
  private readonly deliveredEvents = new WeakSet<OrderedEvent>()
  private readonly context: SharedContext

  constructor(
    scheduler: ExecutionScheduler,
    encodedEvents: EncodedEventCache,
    private readonly metrics: LiveMetrics,
  ) {
    this.context = {
      metrics,
      scheduler,
      encodedEvents,
      quotas: this.quotas,
      onDelivery: (event) => this.observeLatency(event),
      onEnd: (subscription) => this.remove(subscription),
    }
  }

  /**
   * Adds a subscriber, which the caller then starts. The resolver of the subscription field returned
   * `stream`.
   * @throws RateLimitedError
   */
  subscribe(
    operationId: string,
    operation: SharedOperation,
    stream: AsyncIterable<unknown>,
    socket: SubscriberSocket,
  ): Subscriber {
    if (!(stream instanceof EventStream))
      throw new Error('A subscription resolver must return an EventStream.')
    const { source } = stream
    const { subject } = socket
    // Positions are void in another log, so nothing is shared across logs.
    const key = `${source.logId} ${source.key} ${operation.key}`
    let subscription = this.subscriptions.get(key)
    if (!subscription?.includesSubject(subject.id)) {
      const rejectionReason = this.quotas.rejectionReason(subject, source.topic)
      if (rejectionReason !== undefined) throw this.rejection('share', rejectionReason)
    }
    if (!subscription) {
      if (this.subscriptions.size >= MAX_SHARED_SUBSCRIPTIONS) {
        const limit = MAX_SHARED_SUBSCRIPTIONS.toLocaleString('en')
        throw this.rejection(
          'groups',
          `This node already serves ${limit} distinct subscriptions. Use a common query, or another node.`,
        )
      }
      subscription = new SharedSubscription(key, source, operation.args, this.context)
      this.subscriptions.set(key, subscription)
      this.metrics.sharedSubscriptions.inc()
    }
    subscription.addSubject(subject.id)
    return new Subscriber(operationId, stream, subscription, socket)
  }

  private rejection(reason: string, message: string): RateLimitedError {
    this.metrics.refusals.inc({ reason })
    return new RateLimitedError(message)
  }

  /** Measured once for each event, before its first write. */
  private observeLatency(event: OrderedEvent): void {
    if (this.deliveredEvents.has(event)) return
    this.deliveredEvents.add(event)
    this.metrics.commitToSocketSeconds.observe(Math.max(0, Date.now() - event.at.getTime()) / 1000)
  }

  private remove({ key }: SharedSubscription): void {
    this.subscriptions.delete(key)
    this.metrics.sharedSubscriptions.dec()
  }
}

/**
 * The fan-out serves every subscription of the schema.
 * @throws Error that names the fields not declared with `@EventSubscription`
 */
export function checkSubscriptionFields(schema: GraphQLSchema): void {
  const fields = Object.values(schema.getSubscriptionType()?.getFields() ?? {})
  const names = fields
    .filter((field) => !isEventSubscription(field))
    .map(({ name }) => `Subscription.${name}`)
  if (names.length === 0) return
  throw new Error(
    `The fan-out cannot serve ${names.join(', ')}. Declare subscription resolvers with @EventSubscription, and return an EventStream.`,
  )
}
