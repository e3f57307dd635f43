import { type BeforeApplicationShutdown, Injectable, Logger, type OnModuleInit } from '@nestjs/common'
import { PubSubEngine } from 'graphql-subscriptions'
import { CursorUnknown } from '../errors.ts'
import { positionOf, toCursor } from './cursor.ts'
import { DEPLOYMENTS_TOPIC, EventLog, type LookHint } from './event-log.ts'
import { type FollowOptions, FollowRequest } from './follow-request.ts'
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
 *   hint with event head + 1 ──> taken as it is
 *   hint of anything newer   ──> the log is read from head on
 *   no hint for a while      ──> the log is read from head on, in case that one was lost
 */
@Injectable()
export class EventFeed implements OnModuleInit, BeforeApplicationShutdown {
  private readonly logger = new Logger(EventFeed.name)
  private readonly reader: LogReader
  private readonly listeners = new Set<(event: LoggedEvent) => void>()
  private readonly waiting = new Set<() => void>()
  /** The newest event of each active deployment, in the order of positions: whoever moves goes to the end. */
  private readonly active = new Map<string, LoggedEvent>()
  /** Contiguous, and the last one is at `headPosition`. */
  private recent: LoggedEvent[] = []
  private headPosition = 0
  private logId = 0
  /** How often a hint did not follow what was known, so that the log had to be read. */
  gapFills = 0
  private subscription: number | undefined
  private safetyLook: NodeJS.Timeout | undefined
  private looking: Promise<void> | undefined
  private lookAgain = false
  private readonly lostHints = new LostHints()

  constructor(
    private readonly log: EventLog,
    private readonly pubSub: PubSubEngine,
  ) {
    this.reader = new LogReader(log)
  }

  async onModuleInit(): Promise<void> {
    const { logId, position } = await this.log.head()
    this.logId = logId
    this.headPosition = position
    await this.readActive()
    this.subscription = await this.pubSub.subscribe(
      DEPLOYMENTS_TOPIC,
      (hint: LookHint) => this.hear(hint),
      {},
    )
    this.lostHints.told(position)
    this.safetyLook = setInterval(() => void this.lookForLost(), SAFETY_LOOK_MS)
    // Whatever was appended between the head and the subscription.
    this.look()
    await this.looking
  }

  /** Global modules are the last to be told; until the last socket has been closed, its viewers hear of events. */
  async beforeApplicationShutdown(): Promise<void> {
    clearInterval(this.safetyLook)
    if (this.subscription !== undefined) this.pubSub.unsubscribe(this.subscription)
    await this.looking
  }

  /** Position of the newest event that this node has seen. */
  get head(): number {
    return this.headPosition
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
    if (position > this.headPosition) await this.catchUpWith(position, after)
    return new FollowRequest(this, wanted, position)
  }

  /** Calls the listener with each event, in order, in the turn in which the feed takes it. Returns what ends that. */
  listen(listener: (event: LoggedEvent) => void): () => void {
    this.listeners.add(listener)
    return () => this.listeners.delete(listener)
  }

  /** The state at `until`: the newest event of each active deployment; or of the one named, if there is one. */
  current(deploymentId?: string): Stretch | Promise<Stretch> {
    const until = this.headPosition
    if (deploymentId === undefined) return { events: [...this.active.values()], until }
    const event = this.active.get(deploymentId)
    return event ? { events: [event], until } : this.reader.newestOf(deploymentId, until)
  }

  /** What was asked for after a position, or the first part of it: at once when it is in memory. */
  since(position: number, deploymentId?: string): Stretch | Promise<Stretch> {
    const start = this.recent.length - (this.headPosition - position)
    if (start < 0) return this.reader.since(position, deploymentId, this.headPosition)
    const events = this.recent.slice(start, start + STRETCH_EVENTS)
    return { events, until: events.at(-1)?.position ?? position }
  }

  /** Resolves once there is an event after `position`; rejects with the signal's reason. */
  async after(position: number, signal: AbortSignal): Promise<void> {
    while (this.headPosition <= position) {
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
    if (this.looking) {
      this.lookAgain = true
      return
    }
    this.looking = this.readOn()
      .catch((error: unknown) =>
        this.logger.warn('Could not read the event log; looking again soon', { error }),
      )
      .finally(() => {
        this.looking = undefined
        if (this.lookAgain) {
          this.lookAgain = false
          this.look()
        }
      })
  }

  private hear(hint: LookHint): void {
    const { event } = hint
    if (event) this.lostHints.told(event.position)
    if (event && event.position <= this.headPosition + 1) this.accept({ ...event, at: new Date(event.at) })
    else if (event) {
      this.gapFills++
      this.look()
    }
    // "There may be anything": whatever is there now has been told of.
    else void this.lookToEnd().then(() => this.lostHints.told(this.headPosition))
  }

  /** Another node may have seen more than this one; all who come from it wait for the same look at the log. */
  private async catchUpWith(position: number, cursor: string): Promise<void> {
    await this.lookToEnd()
    // That look may have failed; this one then says why.
    if (position > this.headPosition && position > (await this.log.head()).position) {
      throw new CursorUnknown(cursor)
    }
  }

  private async lookToEnd(): Promise<void> {
    this.look()
    while (this.looking) await this.looking
  }

  private async lookForLost(): Promise<void> {
    await this.lookToEnd()
    await this.lookForRewind()
    if (!this.lostHints.found(this.headPosition)) return
    this.logger.warn('A look at the log has found events that no hint had told of', {
      times: this.lostHints.count,
    })
  }

  /** A log never gets shorter, unless the database has lost commits; then this node has told what did not happen. */
  private async lookForRewind(): Promise<void> {
    const told = this.headPosition
    const head = await this.log.head().catch(() => undefined)
    if (!head || (head.position >= told && head.logId === this.logId)) return
    this.logger.error(
      'The log ends before what this node has told, or is another one: the database has lost commits, or was replaced. Stop all nodes, see "Back-up and restore" in docs/operations.md, and start them again',
      { told, position: head.position },
    )
  }

  private async readOn(): Promise<void> {
    let events: LoggedEvent[]
    do {
      events = await this.log.read({ position: this.headPosition, limit: READ_EVENTS })
      for (const event of events) this.accept(event)
    } while (events.length === READ_EVENTS)
  }

  /** Those that have moved on since `headPosition` was read are left out: they come with what follows. */
  private async readActive(): Promise<void> {
    const until = this.headPosition
    let events: LoggedEvent[]
    let after = 0
    do {
      events = await this.log.readCurrent({ after, until, limit: READ_EVENTS })
      for (const event of events) this.active.set(event.deploymentId, event)
      after = events.at(-1)?.position ?? until
    } while (events.length === READ_EVENTS)
  }

  private accept(event: LoggedEvent): void {
    if (event.position !== this.headPosition + 1) return
    this.headPosition = event.position
    this.recent.push(event)
    if (this.recent.length > 2 * RECENT_EVENTS) this.recent = this.recent.slice(-RECENT_EVENTS)
    this.active.delete(event.deploymentId)
    if (isActive(event)) this.active.set(event.deploymentId, event)
    for (const listener of this.listeners) listener(event)
    for (const wake of [...this.waiting]) wake()
  }
}

function isActive({ deployment }: LoggedEvent): boolean {
  return ACTIVE_STATUSES.some((status) => status === deployment.status)
}
