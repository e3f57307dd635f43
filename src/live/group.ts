import { Logger } from '@nestjs/common'
import { type ExecutionResult, execute } from 'graphql'
import type { LRUCache } from 'lru-cache'
import type { RequestContext } from '../auth/request-context.ts'
import { includesOrg, type Organizations } from '../auth/rights.ts'
import type { EventFeed } from '../events/event-feed.ts'
import type { LoggedEvent } from '../events/logged-event.ts'
import { resultForClient } from '../graphql/client-errors.ts'
import type { PreparedArgs } from '../graphql/prepare-operation.ts'
import { Counts } from '../runtime/counts.ts'
import type { ExecutionSlices, Late } from './execution-slices.ts'
import type { GroupShares } from './group-shares.ts'
import type { LiveMetrics } from './live-metrics.ts'
import type { Member } from './member.ts'

/** Events that wait for an execution, or for a turn to be executed; beyond it the members read on by themselves. */
const MOST_QUEUED = 1_000

/** The end of an event's `next` message, `…"payload":{…}}`, as bytes; or it is still being made. */
export type Encoded = Uint8Array | Promise<Uint8Array>

/** Executions are shared by all members: there is no one to ask about. */
const SHARED_CONTEXT: RequestContext = {
  subject: { id: 'nobody', name: 'nobody', rights: { role: 'viewer', sees: [], deploysTo: [] } },
  credential: undefined,
  address: 'none',
  connectionId: undefined,
  signal: new AbortController().signal,
}

/** What all groups have together. */
export interface Groups {
  feed: EventFeed
  metrics: LiveMetrics
  slices: ExecutionSlices
  shares: GroupShares
  /** Encoded events, kept for a while. */
  encoded: LRUCache<string, Encoded>
  /** Called before live members are sent an event. */
  delivering(event: LoggedEvent): void
  /** Called when the last member has left. */
  end(group: Group): void
}

/**
 * All who want the same: each event is executed once and encoded once for all of them. The end of the message is
 * theirs together; the beginning, with the operation's id, is each member's own.
 */
export class Group implements Late {
  /** Members that have been sent everything that this group has delivered. */
  readonly live = new Set<Member>()
  private memberCount = 0
  /** How many of them are of which subject. */
  private readonly subjects = new Counts()
  private readonly logger = new Logger(Group.name)
  private queue: LoggedEvent[] = []

  constructor(
    readonly key: string,
    /** The deployment that it is about; undefined: all of them. */
    readonly about: string | undefined,
    /** The organizations that all of its members may see. */
    private readonly sees: Organizations,
    private readonly args: PreparedArgs,
    private readonly groups: Groups,
  ) {}

  get feed(): EventFeed {
    return this.groups.feed
  }

  get metrics(): LiveMetrics {
    return this.groups.metrics
  }

  /** Where live members are. */
  get position(): number {
    const next = this.queue[0]
    return next ? next.position - 1 : this.feed.head
  }

  get slices(): ExecutionSlices {
    return this.groups.slices
  }

  get waitingCount(): number {
    return this.live.size
  }

  includes(subjectId: string): boolean {
    return this.subjects.of(subjectId) > 0
  }

  join(subjectId: string): void {
    if (!this.includes(subjectId)) this.groups.shares.take(subjectId, this.about)
    this.subjects.add(subjectId)
    this.memberCount++
    this.metrics.members.inc()
  }

  leave(member: Member, subjectId: string): void {
    this.live.delete(member)
    this.subjects.remove(subjectId)
    if (!this.includes(subjectId)) this.groups.shares.release(subjectId, this.about)
    this.memberCount--
    this.metrics.members.dec()
    if (this.memberCount > 0) return
    this.forgetQueue()
    this.groups.end(this)
  }

  /** A new event of what it is about. */
  take(event: LoggedEvent): void {
    if (!includesOrg(this.sees, event.deployment.org)) return
    this.queue.push(event)
    if (this.queue.length > MOST_QUEUED) this.fallBehind()
    else if (this.queue.length === 1) this.goOn()
  }

  /** Delivers what waits, in order, for as long as this turn of the event loop may take. */
  goOn(): void {
    const { queue } = this
    for (let event = queue[0]; event && queue === this.queue; event = queue[0]) {
      if (this.slices.isOver) {
        this.slices.deliverLater(this)
        return
      }
      try {
        const payload = this.encode(event)
        if (payload instanceof Promise) {
          void this.goOnAfter(payload, event)
          return
        }
        queue.shift()
        this.deliver(event, payload)
      } catch (error) {
        this.giveUp(error)
      }
    }
  }

  /** What waits is not to be delivered: nobody is left, or it is of a log that is no more. */
  forgetQueue(): void {
    this.queue = []
    // Otherwise that turn could come while the first event of the new queue is being executed, and deliver it twice.
    this.slices.cancelDelivery(this)
  }

  /** Whether it can be had without an execution. */
  hasEncoded(event: LoggedEvent): boolean {
    return this.groups.encoded.has(this.encodedKey(event))
  }

  /** Made once, and kept for a while for those who join or lag. */
  encode(event: LoggedEvent): Encoded {
    const key = this.encodedKey(event)
    const { encoded } = this.groups
    const before = encoded.get(key)
    if (before) return before
    this.metrics.executions.inc()
    const payload = this.slices.run(() => this.execute(event))
    encoded.set(key, payload)
    if (payload instanceof Promise) {
      payload.then(
        (bytes) => encoded.set(key, bytes),
        () => encoded.delete(key),
      )
    }
    return payload
  }

  private execute(event: LoggedEvent): Encoded {
    const result = execute({ ...this.args, rootValue: event, contextValue: SHARED_CONTEXT })
    return result instanceof Promise ? result.then(encodeResult) : encodeResult(result)
  }

  /** The link tells events of one position apart, of which there are two when the database has lost one. */
  private encodedKey({ position, link }: LoggedEvent): string {
    return `${position} ${link} ${this.key}`
  }

  private deliver(event: LoggedEvent, payload: Uint8Array): void {
    if (this.live.size === 0) return
    this.groups.delivering(event)
    this.metrics.deliveries.inc(this.live.size)
    this.metrics.sentBytes.inc(this.live.size * payload.byteLength)
    for (const member of this.live) member.send(event, payload)
  }

  /** The queue is given up when it has become too long meanwhile. */
  private async goOnAfter(encoding: Promise<Uint8Array>, event: LoggedEvent): Promise<void> {
    const { queue } = this
    try {
      const payload = await encoding
      if (queue !== this.queue) return
      queue.shift()
      this.deliver(event, payload)
    } catch (error) {
      if (queue !== this.queue) return
      this.giveUp(error)
    }
    this.goOn()
  }

  /** Each member is told, as soon as it comes to what cannot be encoded. */
  private giveUp(error: unknown): void {
    this.logger.error('An event could not be encoded', { error })
    this.fallBehind()
  }

  private fallBehind(): void {
    const { position } = this
    this.forgetQueue()
    const members = [...this.live]
    this.live.clear()
    for (const member of members) member.readOnFrom(position)
  }
}

const encoder = new TextEncoder()

function encodeResult(result: ExecutionResult): Uint8Array {
  // Bytes of their own: a buffer from Node's pool would keep a slab of it alive for as long as this is kept.
  return encoder.encode(`,"type":"next","payload":${JSON.stringify(resultForClient(result))}}`)
}
