import { type BeforeApplicationShutdown, Injectable, Logger, type OnModuleInit } from '@nestjs/common'
import { PubSubEngine } from 'graphql-subscriptions'
import { CursorUnknown } from '../errors.ts'
import { SharedLook } from '../runtime/shared-look.ts'
import {
  DEPLOYMENTS_TOPIC,
  EventLog,
  type LogPlace,
  type LookHint,
  positionOf,
  toCursor,
} from './event-log.ts'
import { type FollowOptions, FollowRequest } from './follower.ts'
import { LogReader } from './log-reader.ts'
import { ACTIVE_STATUSES, type DeploymentStatus, type LoggedEvent } from './logged-event.ts'
import { LostHints } from './lost-hints.ts'

/** Events kept in memory for those who join or lag; a kilobyte each, or so. */
const RECENT_EVENTS = 4_096
const READ_EVENTS = 500
/** At most so many events of one stretch from memory. */
const STRETCH_EVENTS = 100
/** How long a lost hint can stay unnoticed. */
const SAFETY_LOOK_MS = 2_000

/** All events that were asked for, of those after the position asked for, up to and with `until`. */
export interface Stretch {
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
  private readonly restartListeners = new Set<() => void>()
  private readonly waiting = new Set<() => void>()
  /** The newest event of each active deployment, in the order of positions: whoever moves goes to the end. */
  private active = new Map<string, LoggedEvent>()
  /** Contiguous, and the last one is at `place`. */
  private recent: LoggedEvent[] = []
  private place: LogPlace = { logId: 0, position: 0, link: 0 }
  /** How often a hint did not follow what was known, so that the log had to be read. */
  gapFills = 0
  private subscription: number | undefined
  private safetyLook: NodeJS.Timeout | undefined
  private readonly shared = new SharedLook(
    () => this.readOn(),
    (error) => this.logger.warn('Could not read the event log; looking again soon', { error }),
  )
  private readonly lostHints = new LostHints()

  constructor(
    private readonly log: EventLog,
    private readonly pubSub: PubSubEngine,
  ) {
    this.reader = new LogReader(log)
  }

  async onModuleInit(): Promise<void> {
    this.beginAt(await this.readNow())
    this.subscription = await this.pubSub.subscribe(
      DEPLOYMENTS_TOPIC,
      (hint: LookHint) => this.hear(hint),
      {},
    )
    this.safetyLook = setInterval(() => void this.lookForLost(), SAFETY_LOOK_MS)
    // Whatever was appended between the head and the subscription.
    this.look()
    await this.shared.ended()
  }

  /** Global modules are the last to be told; until the last socket has been closed, its viewers hear of events. */
  async beforeApplicationShutdown(): Promise<void> {
    clearInterval(this.safetyLook)
    if (this.subscription !== undefined) this.pubSub.unsubscribe(this.subscription)
    await this.shared.ended()
  }

  /** Position of the newest event that this node has seen. */
  get head(): number {
    return this.place.position
  }

  /** Names the log in cursors. It changes only when the log was found to have lost what this node has told. */
  get logId(): number {
    return this.place.logId
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
  get lostHintCount(): number {
    return this.lostHints.count
  }

  cursorOf(position: number): string {
    return toCursor(this.logId, position)
  }

  /**
   * Every event that `options` ask for, from then on without end.
   * @throws CursorUnknown when `after` is not a cursor of this log, or lies beyond its end
   */
  async follow(options: FollowOptions & { after?: string | null | undefined }): Promise<FollowRequest> {
    const { after, ...wanted } = options
    if (after == null) return new FollowRequest(this, wanted, undefined)
    const position = positionOf(after, this.logId)
    if (position <= this.head) return new FollowRequest(this, wanted, position)
    await this.catchUpWith(after)
    // It may be another log by now.
    return new FollowRequest(this, wanted, positionOf(after, this.logId))
  }

  /** Calls the listener with each event, in order, in the turn in which the feed takes it. Returns what ends that. */
  listen(listener: (event: LoggedEvent) => void): () => void {
    this.listeners.add(listener)
    return () => this.listeners.delete(listener)
  }

  /**
   * Calls the listener when the database has lost events that this node has told: what was told before is void, and
   * events of the same positions follow. Returns what ends that.
   */
  onRestart(listener: () => void): () => void {
    this.restartListeners.add(listener)
    return () => this.restartListeners.delete(listener)
  }

  /** The state at `until`: the newest event of each active deployment; or of the one named, if there is one. */
  current(deploymentId?: string): Stretch | Promise<Stretch> {
    const until = this.head
    if (deploymentId === undefined) return { events: [...this.active.values()], until }
    const event = this.active.get(deploymentId)
    return event ? { events: [event], until } : this.reader.newestOf(deploymentId, until)
  }

  /** What was asked for after a position, or the first part of it: at once when it is in memory. */
  since(position: number, deploymentId?: string): Stretch | Promise<Stretch> {
    const start = this.recent.length - (this.head - position)
    if (start < 0) return this.reader.since(position, deploymentId, this.head)
    const events = this.recent.slice(start, start + STRETCH_EVENTS)
    return { events, until: events.at(-1)?.position ?? position }
  }

  /** Resolves once there is an event after `position`, or another log; rejects with the signal's reason. */
  async after(position: number, signal: AbortSignal): Promise<void> {
    const { logId } = this
    while (this.head <= position && this.logId === logId) {
      signal.throwIfAborted()
      await new Promise<void>((resolve) => {
        const wake = () => {
          this.waiting.delete(wake)
          signal.removeEventListener('abort', wake)
          resolve()
        }
        this.waiting.add(wake)
        signal.addEventListener('abort', wake)
      })
      signal.throwIfAborted()
    }
  }

  /** Reads on in the log; several calls at once share one read, and one more follows for the latecomers. */
  look(): void {
    this.shared.begin()
  }

  private hear(hint: LookHint): void {
    const { event, logId } = hint
    // Of another log: perhaps ours by now.
    const isOurs = logId === this.logId
    if (event && isOurs) this.lostHints.told(event.position)
    if (event && isOurs && this.isNext(event)) this.accept({ ...event, at: new Date(event.at) })
    else if (event && !(isOurs && this.isKnown(event))) {
      this.gapFills++
      this.look()
    }
    // "There may be anything": whatever is there now has been told of.
    else if (!event) void this.lookToEnd().then(() => this.lostHints.told(this.head))
  }

  /** Another node may have seen more than this one; all who come from it wait for the same look at the log. */
  private async catchUpWith(cursor: string): Promise<void> {
    await this.lookToEnd()
    const position = positionOf(cursor, this.logId)
    if (position <= this.head) return
    // That look may have failed; this one then says why.
    const newest = await this.log.head()
    if (position > newest.position || newest.logId !== this.logId) throw new CursorUnknown(cursor)
  }

  private async lookToEnd(): Promise<void> {
    this.look()
    await this.shared.settled()
  }

  private async lookForLost(): Promise<void> {
    await this.lookToEnd()
    if (!this.lostHints.found(this.head)) return
    this.logger.warn('A look at the log has found events that no hint had told of', {
      times: this.lostHints.count,
    })
  }

  private async readOn(): Promise<void> {
    let events: LoggedEvent[] | undefined
    do {
      events = await this.log.readOn(this.place, READ_EVENTS)
      if (!events) return this.startOver()
      for (const event of events) this.accept(event)
    } while (events.length === READ_EVENTS)
  }

  /** The database has lost commits, or was replaced: this node has told what did not happen. */
  private async startOver(): Promise<void> {
    const told = this.place
    await this.log.rename(told)
    const { logId, position } = await this.log.head()
    if (logId === told.logId) {
      // Such as from a replica that is behind, which a pooler may ask in the primary's place.
      this.logger.warn('The log seemed to have lost what this node has told, and has it', { told })
      return
    }
    this.logger.error(
      'The database has lost events that this node may have told: a failover that lost commits, or a restore. The log has got another id; all sockets are closed, and clients fetch the present state',
      { told, found: { logId, position } },
    )
    this.beginAt(await this.readNow())
    for (const wake of [...this.waiting]) wake()
    for (const listener of this.restartListeners) listener()
  }

  private async readNow(): Promise<Beginning> {
    const place = await this.log.head()
    return { place, active: await this.readActive(place.position) }
  }

  /** Forgets everything else. */
  private beginAt({ place, active }: Beginning): void {
    this.place = place
    this.active = active
    this.recent = []
    this.reader = new LogReader(this.log)
    this.lostHints.beginAt(place.position)
  }

  /** Those that have moved on beyond `until` are left out: they come with what follows. */
  private async readActive(until: number): Promise<Map<string, LoggedEvent>> {
    const active = new Map<string, LoggedEvent>()
    let events: LoggedEvent[]
    let after = 0
    do {
      events = await this.log.readCurrent({ after, until, limit: READ_EVENTS })
      for (const event of events) active.set(event.deploymentId, event)
      after = events.at(-1)?.position ?? until
    } while (events.length === READ_EVENTS)
    return active
  }

  private isNext({ position, follows }: Hinted): boolean {
    return position === this.place.position + 1 && follows === this.place.link
  }

  /** Whether it is one of those that we hold, or older. */
  private isKnown({ position, link }: Hinted): boolean {
    if (position > this.head) return false
    const held = this.recent.at(position - this.head - 1)
    return held === undefined || held.link === link
  }

  private accept(event: LoggedEvent): void {
    if (event.position !== this.head + 1) return
    this.place = { logId: this.logId, position: event.position, link: event.link }
    this.recent.push(event)
    if (this.recent.length > 2 * RECENT_EVENTS) this.recent = this.recent.slice(-RECENT_EVENTS)
    this.active.delete(event.deploymentId)
    if (isActive(event)) this.active.set(event.deploymentId, event)
    for (const listener of this.listeners) listener(event)
    for (const wake of [...this.waiting]) wake()
  }
}

interface Beginning {
  place: LogPlace
  active: Map<string, LoggedEvent>
}

type Hinted = NonNullable<LookHint['event']>

function isActive({ deployment }: LoggedEvent): boolean {
  return ACTIVE_STATUSES.some((status) => status === deployment.status)
}
