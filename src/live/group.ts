import { Logger } from '@nestjs/common'
import { type ExecutionResult, execute } from 'graphql'
import type { LRUCache } from 'lru-cache'
import { includesOrg, type Organizations } from '../auth/rights.ts'
import type { EventFeed } from '../events/event-feed.ts'
import type { LoggedEvent } from '../events/logged-event.ts'
import { resultForClient } from '../graphql/client-errors.ts'
import type { PreparedArgs } from '../graphql/prepare-operation.ts'
import type { RequestContext } from '../request-context.ts'
import type { LiveMetrics } from './live-metrics.ts'
import type { Member } from './member.ts'

/** Events that wait for one whose execution takes its time; beyond it the members read on by themselves. */
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
  /** Encoded events, kept for a while. */
  encoded: LRUCache<string, Encoded>
  /** Called when the last member has left. */
  end(group: Group): void
}

/**
 * All who want the same: each event is executed once and encoded once for all of them. The end of the message is
 * theirs together; the beginning, with the operation's id, is each member's own.
 */
export class Group {
  /** Members that have been sent everything that this group has delivered. */
  readonly live = new Set<Member>()
  private memberCount = 0
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

  join(): void {
    this.memberCount++
    this.metrics.members.inc()
  }

  leave(member: Member): void {
    this.live.delete(member)
    this.memberCount--
    this.metrics.members.dec()
    if (this.memberCount === 0) this.groups.end(this)
  }

  /** A new event of what it is about. */
  take(event: LoggedEvent): void {
    if (!includesOrg(this.sees, event.deployment.org)) return
    if (this.queue.length > 0) {
      this.queue.push(event)
      if (this.queue.length > MOST_QUEUED) this.fallBehind()
      return
    }
    const payload = this.encode(event)
    if (payload instanceof Promise) {
      this.queue.push(event)
      void this.work(this.queue)
    } else {
      this.deliver(event, payload)
    }
  }

  /** Made once, and kept for a while for those who join or lag. */
  encode(event: LoggedEvent): Encoded {
    const key = `${event.position} ${this.key}`
    const { encoded } = this.groups
    const before = encoded.get(key)
    if (before) return before
    this.metrics.executions.inc()
    const result = execute({ ...this.args, rootValue: event, contextValue: SHARED_CONTEXT })
    const payload = result instanceof Promise ? result.then(encodeResult) : encodeResult(result)
    encoded.set(key, payload)
    if (payload instanceof Promise) {
      payload.then(
        (bytes) => encoded.set(key, bytes),
        () => encoded.delete(key),
      )
    }
    return payload
  }

  private deliver(event: LoggedEvent, payload: Uint8Array): void {
    this.metrics.deliveries.inc(this.live.size)
    this.metrics.sentBytes.inc(this.live.size * payload.byteLength)
    for (const member of this.live) member.send(event, payload)
  }

  /** Delivers what waits, one after the other. The queue is given up when it has become too long. */
  private async work(queue: LoggedEvent[]): Promise<void> {
    for (let event = queue[0]; event && queue === this.queue; event = queue[0]) {
      try {
        const payload = await this.encode(event)
        if (queue !== this.queue) return
        queue.shift()
        this.deliver(event, payload)
      } catch (error) {
        this.logger.error('An event could not be encoded', { error })
        this.fallBehind()
      }
    }
  }

  private fallBehind(): void {
    const { position } = this
    this.queue = []
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
