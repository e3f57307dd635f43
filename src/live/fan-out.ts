import { Injectable, type OnModuleInit } from '@nestjs/common'
import { LRUCache } from 'lru-cache'
import { RateLimited } from '../errors.ts'
import { EventFeed } from '../events/event-feed.ts'
import type { FollowRequest } from '../events/follower.ts'
import type { LoggedEvent } from '../events/logged-event.ts'
import type { PreparedArgs } from '../graphql/prepare-operation.ts'
import { ExecutionSlices } from './execution-slices.ts'
import { type Encoded, Group, type Groups } from './group.ts'
import { GroupShares } from './group-shares.ts'
import { LiveMetrics } from './live-metrics.ts'
import { Member, type Viewer } from './member.ts'

const MOST_GROUPS = 10_000
/** Encoded events kept for those who join or lag, of all groups together. */
const KEPT_BYTES = 64 * 1024 * 1024
/** What keeping one takes beside its bytes: its key, its place, the objects around the bytes. */
const KEPT_OVERHEAD_BYTES = 400

/** What all members of a group share: everything that decides what they are told, and nothing else. */
export interface Shared {
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
  private readonly groups = new Map<string, Group>()
  /** By the deployment that a group is about; undefined: about all. */
  private readonly interested = new Map<string | undefined, Set<Group>>()
  private readonly shares = new GroupShares()
  private readonly shared: Groups
  /** Position of the newest event that somebody was sent as it happened. */
  private deliveredUntil = 0

  constructor(
    private readonly feed: EventFeed,
    private readonly metrics: LiveMetrics,
  ) {
    const encoded = new LRUCache<string, Encoded>({
      maxSize: KEPT_BYTES,
      sizeCalculation: (payload) =>
        KEPT_OVERHEAD_BYTES + (payload instanceof Promise ? 0 : payload.byteLength),
    })
    this.shared = {
      feed,
      metrics,
      slices: new ExecutionSlices(),
      shares: this.shares,
      encoded,
      delivering: (event) => this.observe(event),
      end: (group) => this.end(group),
    }
  }

  onModuleInit(): void {
    this.feed.listen((event) => this.take(event))
    this.feed.onRestart(() => this.startOver())
  }

  /** Adds a subscription to those who want the same. The member is to be begun. */
  join(operationId: string, shared: Shared, request: FollowRequest, viewer: Viewer): Member | RateLimited {
    const { subject } = viewer
    const key = groupKey(shared, request)
    let group = this.groups.get(key)
    if (!group?.includes(subject.id)) {
      const refusal = this.shares.refusal(subject, request.options.deploymentId)
      if (refusal !== undefined) return this.refuse('share', refusal)
    }
    if (!group) {
      if (this.groups.size >= MOST_GROUPS) {
        return this.refuse(
          'groups',
          `This node has ${MOST_GROUPS} different subscriptions open. Ask for the same fields as others do, or connect to another node.`,
        )
      }
      group = this.begin(key, shared, request)
    }
    group.join(subject.id)
    return new Member(operationId, request, group, viewer)
  }

  private refuse(reason: string, sentence: string): RateLimited {
    this.metrics.refusals.inc({ reason })
    return new RateLimited(sentence)
  }

  private take(event: LoggedEvent): void {
    for (const about of [undefined, event.deploymentId]) {
      for (const group of this.interested.get(about) ?? []) group.take(event)
    }
  }

  /** Once for each event, before its first write. */
  private observe({ position, at }: LoggedEvent): void {
    if (position <= this.deliveredUntil) return
    this.deliveredUntil = position
    this.metrics.commitToSocketSeconds.observe(Math.max(0, Date.now() - at.getTime()) / 1000)
  }

  /** All sockets are being closed, and events of the same positions will follow. */
  private startOver(): void {
    this.shared.encoded.clear()
    this.deliveredUntil = 0
    for (const group of this.groups.values()) group.forgetQueue()
  }

  private begin(key: string, { args }: Shared, { options }: FollowRequest): Group {
    const group = new Group(key, options.deploymentId, options.sees, args, this.shared)
    this.groups.set(key, group)
    const others = this.interested.get(options.deploymentId)
    if (others) others.add(group)
    else this.interested.set(options.deploymentId, new Set([group]))
    this.metrics.groups.inc()
    return group
  }

  private end(group: Group): void {
    this.groups.delete(group.key)
    const others = this.interested.get(group.about)
    others?.delete(group)
    if (others?.size === 0) this.interested.delete(group.about)
    this.metrics.groups.dec()
  }
}

function groupKey({ key }: Shared, { options }: FollowRequest): string {
  return `${JSON.stringify([options.deploymentId ?? null, options.sees])} ${key}`
}
