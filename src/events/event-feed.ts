import { EventEmitter, once } from 'node:events'
import { type BeforeApplicationShutdown, Injectable, Logger, type OnModuleInit } from '@nestjs/common'
import { PubSubEngine } from 'graphql-subscriptions'
import type { Organizations } from '../auth/rights.ts'
import { UnknownCursorError } from '../errors.ts'
import { CoalescedTask } from '../runtime/coalesced-task.ts'
import {
  ACTIVE_STATUSES,
  DeploymentEventSource,
  type DeploymentFeed,
  type DeploymentStatus,
  isActive,
  type LoggedEvent,
} from './deployment-event.ts'
import {
  DEPLOYMENTS_TOPIC,
  EventLog,
  type EventNotification,
  type LogPosition,
  positionOf,
  toCursor,
} from './event-log.ts'
import { type EventBatch, EventStream } from './event-stream.ts'
import { LogReader } from './log-reader.ts'
import { MissedNotifications } from './missed-notifications.ts'

/** Events kept in memory for subscribers that join or lag; each about one kilobyte. */
const MAX_RECENT_EVENTS = 4_096
const READ_BATCH_SIZE = 500
/** Events in one batch from memory. */
const MAX_BATCH_SIZE = 100
/** How long a lost notification can stay unnoticed. */
const POLL_INTERVAL_MS = 2_000

/**
 * This node's view of the log: every event once, in order, without a gap. Holds the newest events and the
 * newest event of each active deployment; reads older ones, once for all callers that need them at the same
 * time.
 *
 *   notification with the next event  ──> accepts it
 *   any other notification            ──> reads the log from the head on
 *   no notification for a while       ──> reads the log, in case one was lost
 *   the log does not contain the head ──> starts over
 */
@Injectable()
export class EventFeed implements DeploymentFeed, OnModuleInit, BeforeApplicationShutdown {
  /** How often the log had to be read because a notification was not for the next event. */
  gapFills = 0

  private readonly logger = new Logger(EventFeed.name)
  private reader: LogReader
  /** By deployment; undefined: for events of all deployments. */
  private readonly listeners = new Map<string | undefined, Set<(event: LoggedEvent) => void>>()
  /** Emits `change` for each event and after the log id has changed, and `rotated` in the latter case. */
  private readonly emitter = new EventEmitter().setMaxListeners(0)
  /** The newest event of each active deployment, in order of position. */
  private active = new Map<string, LoggedEvent>()
  /** Contiguous up to `lastSeen`. */
  private recent: LoggedEvent[] = []
  private lastSeen: LogPosition = { logId: 0, position: 0, eventId: 0 }
  private subscription: number | undefined
  private pollTimer: NodeJS.Timeout | undefined
  private readonly pollTask = new CoalescedTask(
    () => this.readNewEvents(),
    (error) => this.logger.warn('Could not read the event log; retrying soon', { error }),
  )
  private readonly missedNotifications = new MissedNotifications()

  constructor(
    private readonly log: EventLog,
    private readonly pubSub: PubSubEngine,
  ) {
    this.reader = new LogReader(log)
  }

  async onModuleInit(): Promise<void> {
    this.reset(await this.readState())
    this.subscription = await this.pubSub.subscribe(
      DEPLOYMENTS_TOPIC,
      (notification: EventNotification) => this.onNotification(notification),
      {},
    )
    this.pollTimer = setInterval(() => void this.pollForMissed(), POLL_INTERVAL_MS)
    // For events appended between reading the head and subscribing.
    await this.poll()
  }

  /** Global modules shut down last: subscribers receive events until the last socket has closed. */
  async beforeApplicationShutdown(): Promise<void> {
    clearInterval(this.pollTimer)
    if (this.subscription !== undefined) this.pubSub.unsubscribe(this.subscription)
    await this.pollTask.idle()
  }

  /** Position of the newest event that this node has seen. */
  get head(): number {
    return this.lastSeen.position
  }

  /** Identifies the log in cursors. Changes only when the log has lost events that this node has seen. */
  get logId(): number {
    return this.lastSeen.logId
  }

  /** The number of deployments in each active status, as far as this node has seen. */
  get activeByStatus(): ReadonlyMap<DeploymentStatus, number> {
    const counts = new Map<DeploymentStatus, number>(ACTIVE_STATUSES.map((status) => [status, 0]))
    for (const { deployment } of this.active.values()) {
      counts.set(deployment.status, (counts.get(deployment.status) ?? 0) + 1)
    }
    return counts
  }

  /** How often a poll found events for which no notification arrived. */
  get missedNotificationCount(): number {
    return this.missedNotifications.count
  }

  /** Listeners for events and waits in progress. */
  get listenerCount(): number {
    const sizes = [...this.listeners.values()].map((listeners) => listeners.size)
    return sizes.reduce((sum, size) => sum + size, 0) + this.emitter.listenerCount('change')
  }

  cursorOf(position: number): string {
    return toCursor(this.logId, position)
  }

  /**
   * Events of the deployments in the organizations that `sees` lists, or of one deployment: after a cursor,
   * or the current state and what follows.
   * @throws UnknownCursorError if `after` is a cursor of another log, or beyond the end of this one
   */
  async follow(options: {
    sees: Organizations
    deploymentId?: string | undefined
    after?: string | null | undefined
    /** The subscriber's connection, which does not receive the events that its own requests cause. */
    origin?: string | undefined
  }): Promise<EventStream<LoggedEvent>> {
    const { sees, deploymentId, after, origin } = options
    const source = new DeploymentEventSource(this, sees, deploymentId)
    const position = after == null ? undefined : await this.resolveCursor(after)
    return new EventStream(source, position, origin)
  }

  /**
   * Calls the listener for each event, or each event of one deployment, synchronously and in order. Returns a
   * function that removes the listener.
   */
  onEvent(listener: (event: LoggedEvent) => void, deploymentId?: string): () => void {
    const listeners = this.listeners.get(deploymentId) ?? new Set()
    this.listeners.set(deploymentId, listeners.add(listener))
    return () => {
      listeners.delete(listener)
      if (listeners.size === 0 && this.listeners.get(deploymentId) === listeners) {
        this.listeners.delete(deploymentId)
      }
    }
  }

  /** Calls the listener when the log has lost events that this node has seen; positions will be reused. */
  onLogRotated(listener: () => void): void {
    this.emitter.on('rotated', listener)
  }

  /** The newest event of each active deployment, or of the given one, active or not. */
  snapshot(deploymentId?: string): EventBatch<LoggedEvent> | Promise<EventBatch<LoggedEvent>> {
    const until = this.head
    if (deploymentId === undefined) return { events: [...this.active.values()], until }
    const event = this.active.get(deploymentId)
    return event ? { events: [event], until } : this.reader.readLatest(deploymentId, until)
  }

  /** From memory, events of all deployments; from the log, only those of the given one. */
  readAfter(
    position: number,
    deploymentId?: string,
  ): EventBatch<LoggedEvent> | Promise<EventBatch<LoggedEvent>> {
    const start = this.recent.length - (this.head - position)
    if (start < 0) return this.reader.readAfter(position, deploymentId, this.head)
    const events = this.recent.slice(start, start + MAX_BATCH_SIZE)
    return { events, until: events.at(-1)?.position ?? position }
  }

  async waitForEventAfter(position: number, signal: AbortSignal): Promise<void> {
    const { logId } = this
    while (this.head <= position && this.logId === logId) await once(this.emitter, 'change', { signal })
  }

  /** Reads new events from the log. Resolves when no read is in progress. */
  async poll(): Promise<void> {
    this.pollTask.run()
    await this.pollTask.idle()
  }

  /** Polls, and counts notifications that have been missing since the previous call. */
  async pollForMissed(): Promise<void> {
    await this.poll()
    if (!this.missedNotifications.recordPoll(this.head)) return
    this.logger.warn('Poll found events for which no notification arrived', {
      times: this.missedNotifications.count,
    })
  }

  private async resolveCursor(cursor: string): Promise<number> {
    if (positionOf(cursor, this.logId) > this.head) await this.catchUpTo(cursor)
    // Another log may have replaced this one by now.
    return positionOf(cursor, this.logId)
  }

  /**
   * The cursor may come from a node that has seen more events; all its former subscribers share this poll.
   */
  private async catchUpTo(cursor: string): Promise<void> {
    await this.poll()
    const position = positionOf(cursor, this.logId)
    if (position <= this.head) return
    // If the poll failed, this read throws the reason.
    const newest = await this.log.readHead()
    if (position > newest.position || newest.logId !== this.logId) throw new UnknownCursorError(cursor)
  }

  private onNotification({ event, logId }: EventNotification): void {
    if (!event) {
      // Without an event, it announces all events that exist now.
      void this.poll().then(() => this.missedNotifications.recordNotification(this.head))
      return
    }
    const isOurs = logId === this.logId
    if (isOurs) this.missedNotifications.recordNotification(event.position)
    if (isOurs && this.isNext(event)) this.accept({ ...event, at: new Date(event.at) })
    else if (!isOurs || !this.isKnown(event)) {
      this.gapFills++
      void this.poll()
    }
  }

  private async readNewEvents(): Promise<void> {
    let events: LoggedEvent[] | undefined
    do {
      events = await this.log.readNext(this.lastSeen, READ_BATCH_SIZE)
      if (!events) return this.handleDivergence()
      for (const event of events) this.accept(event)
    } while (events.length === READ_BATCH_SIZE)
  }

  /** The database has lost commits or was replaced: this node has delivered events that no longer exist. */
  private async handleDivergence(): Promise<void> {
    const { lastSeen } = this
    await this.log.rotateLogId(lastSeen)
    const found = await this.log.readHead()
    if (found.logId === lastSeen.logId) {
      // A pooler can send reads to a replica that is behind.
      this.logger.warn('A read of the log missed the newest event, which the log contains', { lastSeen })
      return
    }
    this.logger.error('Database history diverged (failover or restore): log id rotated, sockets closed', {
      lastSeen,
      found,
    })
    this.reset(await this.readState())
    this.emitter.emit('change')
    this.emitter.emit('rotated')
  }

  private async readState(): Promise<FeedState> {
    const head = await this.log.readHead()
    return { head, active: await this.readActive(head.position) }
  }

  private reset({ head, active }: FeedState): void {
    this.lastSeen = head
    this.active = active
    this.recent = []
    this.reader = new LogReader(this.log)
    this.missedNotifications.reset(head.position)
  }

  /** Omits deployments with events after `until`, which arrive later. */
  private async readActive(until: number): Promise<Map<string, LoggedEvent>> {
    const active = new Map<string, LoggedEvent>()
    let events: LoggedEvent[]
    let after = 0
    do {
      events = await this.log.readLatest({ after, until, limit: READ_BATCH_SIZE })
      for (const event of events) active.set(event.deploymentId, event)
      after = events.at(-1)?.position ?? until
    } while (events.length === READ_BATCH_SIZE)
    return active
  }

  private isNext({ position, previousEventId }: NotifiedEvent): boolean {
    return position === this.head + 1 && previousEventId === this.lastSeen.eventId
  }

  /** Whether the event is in memory, or older. */
  private isKnown({ position, eventId }: NotifiedEvent): boolean {
    if (position > this.head) return false
    const held = this.recent.at(position - this.head - 1)
    return held === undefined || held.eventId === eventId
  }

  private accept(event: LoggedEvent): void {
    const { position, eventId, deploymentId } = event
    if (position !== this.head + 1) return
    this.lastSeen = { logId: this.logId, position, eventId }
    this.recent.push(event)
    if (this.recent.length > 2 * MAX_RECENT_EVENTS) this.recent = this.recent.slice(-MAX_RECENT_EVENTS)
    // Deleted first, so that it moves to the end.
    this.active.delete(deploymentId)
    if (isActive(event.deployment)) this.active.set(deploymentId, event)
    for (const listener of this.listeners.get(undefined) ?? []) listener(event)
    for (const listener of this.listeners.get(deploymentId) ?? []) listener(event)
    this.emitter.emit('change')
  }
}

interface FeedState {
  head: LogPosition
  active: Map<string, LoggedEvent>
}

type NotifiedEvent = NonNullable<EventNotification['event']>
