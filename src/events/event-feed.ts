import { type BeforeApplicationShutdown, Injectable, Logger, type OnModuleInit } from '@nestjs/common'
import { PubSubEngine } from 'graphql-subscriptions'
import { UnknownCursorError } from '../errors.ts'
import { CoalescedTask } from '../runtime/coalesced-task.ts'
import { EventFilter, type EventFilterOptions } from './event-iterator.ts'
import {
  DEPLOYMENTS_TOPIC,
  EventLog,
  type EventNotification,
  type LogPosition,
  positionOf,
  toCursor,
} from './event-log.ts'
import { LogReader } from './log-reader.ts'
import { ACTIVE_STATUSES, type DeploymentStatus, isActive, type LoggedEvent } from './logged-event.ts'
import { MissedNotifications } from './missed-notifications.ts'

/** Events kept in memory for those who join or lag; a kilobyte each, or so. */
const MAX_RECENT_EVENTS = 4_096
const READ_BATCH_SIZE = 500
/** At most so many events of one stretch from memory. */
const MAX_BATCH_SIZE = 100
/** How long a lost hint can stay unnoticed. */
const POLL_INTERVAL_MS = 2_000

/** All events that were asked for, of those after the position asked for, up to and with `until`. */
export interface EventBatch {
  events: readonly LoggedEvent[]
  until: number
}

/**
 * This node's view of the log: every event once, in order, without a gap. It knows how far the log has been read
 * (`head`), the newest events, and the newest event of each active deployment; older ones it reads, once for all who
 * ask at the same time.
 *
 *   hint with the event that follows ──> taken as it is
 *   hint of anything else            ──> the log is read from head on
 *   no hint for a while              ──> the log is read from head on, in case that one was lost
 *   the log does not have our head   ──> starts over
 */
@Injectable()
export class EventFeed implements OnModuleInit, BeforeApplicationShutdown {
  private readonly logger = new Logger(EventFeed.name)
  private reader: LogReader
  private readonly listeners = new Set<(event: LoggedEvent) => void>()
  private readonly logRotatedListeners = new Set<() => void>()
  private readonly waiters = new Set<() => void>()
  /** The newest event of each active deployment, in the order of positions: whoever moves goes to the end. */
  private active = new Map<string, LoggedEvent>()
  /** Contiguous, and the last one is at `place`. */
  private recent: LoggedEvent[] = []
  private lastSeen: LogPosition = { logId: 0, position: 0, link: 0 }
  /** How often a hint did not follow what was known, so that the log had to be read. */
  gapFills = 0
  private subscription: number | undefined
  private pollTimer: NodeJS.Timeout | undefined
  private readonly pollTask = new CoalescedTask(
    () => this.readNewEvents(),
    (error) => this.logger.warn('Could not read the event log; looking again soon', { error }),
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
      (hint: EventNotification) => this.onNotification(hint),
      {},
    )
    this.pollTimer = setInterval(() => void this.pollForMissed(), POLL_INTERVAL_MS)
    // Whatever was appended between the head and the subscription.
    this.poll()
    await this.pollTask.currentRun()
  }

  /** Global modules are the last to be told; until the last socket has been closed, its viewers hear of events. */
  async beforeApplicationShutdown(): Promise<void> {
    clearInterval(this.pollTimer)
    if (this.subscription !== undefined) this.pubSub.unsubscribe(this.subscription)
    await this.pollTask.currentRun()
  }

  /** Position of the newest event that this node has seen. */
  get head(): number {
    return this.lastSeen.position
  }

  /** Names the log in cursors. It changes only when the log was found to have lost what this node has told. */
  get logId(): number {
    return this.lastSeen.logId
  }

  /** How many deployments are in each active status, as far as this node has seen. */
  get activeByStatus(): ReadonlyMap<DeploymentStatus, number> {
    const counts = new Map<DeploymentStatus, number>(ACTIVE_STATUSES.map((status) => [status, 0]))
    for (const { deployment } of this.active.values()) {
      counts.set(deployment.status, (counts.get(deployment.status) ?? 0) + 1)
    }
    return counts
  }

  /** How often the safety look has found events that no hint had told of. More than a few: look after PubSub. */
  get missedNotificationCount(): number {
    return this.missedNotifications.count
  }

  cursorOf(position: number): string {
    return toCursor(this.logId, position)
  }

  /**
   * Every event that `options` ask for, from then on without end.
   * @throws CursorUnknown when `after` is not a cursor of this log, or lies beyond its end
   */
  async follow(
    options: EventFilterOptions & { waitForEventAfter?: string | null | undefined },
  ): Promise<EventFilter> {
    const { waitForEventAfter: after, ...wanted } = options
    if (after == null) return new EventFilter(this, wanted, undefined)
    const position = positionOf(after, this.logId)
    if (position <= this.head) return new EventFilter(this, wanted, position)
    await this.catchUpTo(after)
    // It may be another log by now.
    return new EventFilter(this, wanted, positionOf(after, this.logId))
  }

  /** Calls the listener with each event, in order, in the turn in which the feed takes it. Returns what ends that. */
  onEvent(listener: (event: LoggedEvent) => void): () => void {
    this.listeners.add(listener)
    return () => this.listeners.delete(listener)
  }

  /**
   * Calls the listener when the database has lost events that this node has told: what was told before is void, and
   * events of the same positions follow. Returns what ends that.
   */
  onLogRotated(listener: () => void): () => void {
    this.logRotatedListeners.add(listener)
    return () => this.logRotatedListeners.delete(listener)
  }

  /** The state at `until`: the newest event of each active deployment; or of the one named, if there is one. */
  snapshot(deploymentId?: string): EventBatch | Promise<EventBatch> {
    const until = this.head
    if (deploymentId === undefined) return { events: [...this.active.values()], until }
    const event = this.active.get(deploymentId)
    return event ? { events: [event], until } : this.reader.readLatest(deploymentId, until)
  }

  /** What was asked for after a position, or the first part of it: at once when it is in memory. */
  readAfter(position: number, deploymentId?: string): EventBatch | Promise<EventBatch> {
    const start = this.recent.length - (this.head - position)
    if (start < 0) return this.reader.readAfter(position, deploymentId, this.head)
    const events = this.recent.slice(start, start + MAX_BATCH_SIZE)
    return { events, until: events.at(-1)?.position ?? position }
  }

  /** Resolves once there is an event after `position`, or another log; rejects with the signal's reason. */
  async after(position: number, signal: AbortSignal): Promise<void> {
    const { logId } = this
    while (this.head <= position && this.logId === logId) {
      signal.throwIfAborted()
      await new Promise<void>((resolve) => {
        const wake = () => {
          this.waiters.delete(wake)
          signal.removeEventListener('abort', wake)
          resolve()
        }
        this.waiters.add(wake)
        signal.addEventListener('abort', wake)
      })
      signal.throwIfAborted()
    }
  }

  /** Reads on in the log; several calls at once share one read, and one more follows for the latecomers. */
  poll(): void {
    this.pollTask.run()
  }

  private onNotification(hint: EventNotification): void {
    const { event, logId } = hint
    // Of another log: perhaps ours by now.
    const isOurs = logId === this.logId
    if (event && isOurs) this.missedNotifications.recordNotification(event.position)
    if (event && isOurs && this.isNext(event)) this.accept({ ...event, at: new Date(event.at) })
    else if (event && !(isOurs && this.isKnown(event))) {
      this.gapFills++
      this.poll()
    }
    // "There may be anything": whatever is there now has been told of.
    else if (!event)
      void this.pollUntilIdle().then(() => this.missedNotifications.recordNotification(this.head))
  }

  /** Another node may have seen more than this one; all who come from it wait for the same look at the log. */
  private async catchUpTo(cursor: string): Promise<void> {
    await this.pollUntilIdle()
    const position = positionOf(cursor, this.logId)
    if (position <= this.head) return
    // That look may have failed; this one then says why.
    const newest = await this.log.readHead()
    if (position > newest.position || newest.logId !== this.logId) throw new UnknownCursorError(cursor)
  }

  private async pollUntilIdle(): Promise<void> {
    this.poll()
    await this.pollTask.idle()
  }

  private async pollForMissed(): Promise<void> {
    await this.pollUntilIdle()
    if (!this.missedNotifications.recordPoll(this.head)) return
    this.logger.warn('A look at the log has found events that no hint had told of', {
      times: this.missedNotifications.count,
    })
  }

  private async readNewEvents(): Promise<void> {
    let events: LoggedEvent[] | undefined
    do {
      events = await this.log.readNext(this.lastSeen, READ_BATCH_SIZE)
      if (!events) return this.handleDivergence()
      for (const event of events) this.accept(event)
    } while (events.length === READ_BATCH_SIZE)
  }

  /** The database has lost commits, or was replaced: this node has told what did not happen. */
  private async handleDivergence(): Promise<void> {
    const told = this.lastSeen
    await this.log.rotateLogId(told)
    const { logId, position } = await this.log.readHead()
    if (logId === told.logId) {
      // Such as from a replica that is behind, which a pooler may ask in the primary's place.
      this.logger.warn('The log seemed to have lost what this node has told, and has it', { told })
      return
    }
    this.logger.error(
      'The database has lost events that this node may have told: a failover that lost commits, or a restore. The log has got another id; all sockets are closed, and clients fetch the present state',
      { told, found: { logId, position } },
    )
    this.reset(await this.readState())
    for (const wake of [...this.waiters]) wake()
    for (const listener of this.logRotatedListeners) listener()
  }

  private async readState(): Promise<FeedState> {
    const place = await this.log.readHead()
    return { head: place, active: await this.readActive(place.position) }
  }

  /** Forgets everything else. */
  private reset({ head: place, active }: FeedState): void {
    this.lastSeen = place
    this.active = active
    this.recent = []
    this.reader = new LogReader(this.log)
    this.missedNotifications.reset(place.position)
  }

  /** Those that have moved on beyond `until` are left out: they come with what follows. */
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

  private isNext({ position, previousEventId: follows }: NotifiedEvent): boolean {
    return position === this.lastSeen.position + 1 && follows === this.lastSeen.link
  }

  /** Whether it is one of those that we hold, or older. */
  private isKnown({ position, eventId: link }: NotifiedEvent): boolean {
    if (position > this.head) return false
    const held = this.recent.at(position - this.head - 1)
    return held === undefined || held.eventId === link
  }

  private accept(event: LoggedEvent): void {
    if (event.position !== this.head + 1) return
    this.lastSeen = { logId: this.logId, position: event.position, link: event.eventId }
    this.recent.push(event)
    if (this.recent.length > 2 * MAX_RECENT_EVENTS) this.recent = this.recent.slice(-MAX_RECENT_EVENTS)
    this.active.delete(event.deploymentId)
    if (isActive(event.deployment)) this.active.set(event.deploymentId, event)
    for (const listener of this.listeners) listener(event)
    for (const wake of [...this.waiters]) wake()
  }
}

interface FeedState {
  head: LogPosition
  active: Map<string, LoggedEvent>
}

type NotifiedEvent = NonNullable<EventNotification['event']>
