import { Injectable, type OnModuleInit } from '@nestjs/common'
import { LRUCache } from 'lru-cache'
import { RateLimited } from '../errors.ts'
import { EventFeed } from '../events/event-feed.ts'
import type { FollowRequest } from '../events/follow-request.ts'
import type { LoggedEvent } from '../events/logged-event.ts'
import type { PreparedArgs } from '../graphql/prepare-operation.ts'
import { type Encoded, Group, type Groups } from './group.ts'
import { LiveMetrics } from './live-metrics.ts'
import { Member, type Viewer } from './member.ts'

const MOST_GROUPS = 10_000
/** Encoded events kept for those who join or lag, of all groups together. */
const KEPT_BYTES = 64 * 1024 * 1024
/** What keeping one takes beside its bytes: its key, its place, the objects around the bytes. */
const KEPT_OVERHEAD_BYTES = 400

/** What all members of a group share: everything that decides what they are told, and nothing else. */
export interface Shared {
  /** Names the document and its variables, without the cursor, in which members differ. */
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
  private readonly shared: Groups

  constructor(
    private readonly feed: EventFeed,
    private readonly metrics: LiveMetrics,
  ) {
    const encoded = new LRUCache<string, Encoded>({
      maxSize: KEPT_BYTES,
      sizeCalculation: (payload) =>
        KEPT_OVERHEAD_BYTES + (payload instanceof Promise ? 0 : payload.byteLength),
    })
    this.shared = { feed, metrics, encoded, end: (group) => this.end(group) }
  }

  onModuleInit(): void {
    this.feed.listen((event) => this.take(event))
    // Events of the same positions will follow.
    this.feed.onRestart(() => this.shared.encoded.clear())
  }

  /** Adds a subscription to those who want the same. The member is to be begun. */
  join(operationId: string, shared: Shared, request: FollowRequest, viewer: Viewer): Member | RateLimited {
    const key = groupKey(shared, request)
    let group = this.groups.get(key)
    if (!group) {
      if (this.groups.size >= MOST_GROUPS) {
        this.metrics.refusals.inc({ reason: 'groups' })
        return new RateLimited(
          `${MOST_GROUPS} different subscriptions are open here. Ask for what others ask for, or elsewhere.`,
        )
      }
      group = this.begin(key, shared, request)
    }
    group.join()
    return new Member(operationId, request, group, viewer)
  }

  private take(event: LoggedEvent): void {
    let isFirst = true
    for (const about of [undefined, event.deploymentId]) {
      for (const group of this.interested.get(about) ?? []) {
        if (isFirst && group.live.size > 0) {
          isFirst = false
          this.metrics.commitToSocketSeconds.observe(Math.max(0, Date.now() - event.at.getTime()) / 1000)
        }
        group.take(event)
      }
    }
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
