import { Injectable, Logger, type OnModuleDestroy, type OnModuleInit } from '@nestjs/common'
import { PubSubEngine } from 'graphql-subscriptions'
import { CursorUnknown } from '../errors.ts'
import { positionOf, toCursor } from './cursor.ts'
import { DEPLOYMENTS_TOPIC, EventLog, type LookHint } from './event-log.ts'
import { Follower, type FollowOptions } from './follower.ts'
import type { LoggedEvent } from './logged-event.ts'
import { LostHints } from './lost-hints.ts'

/** Events kept in memory for those who join or lag; a kilobyte each, or so. */
const RECENT_EVENTS = 4_096
const READ_EVENTS = 500
/** How long a lost hint can stay unnoticed. */
const SAFETY_LOOK_MS = 2_000

/**
 * This node's view of the log: every event once, in order, without a gap. It knows how far the log has been read
 * (`head`) and the newest events; whoever wants older ones reads the log.
 *
 *   hint with event head + 1 ──> taken as it is
 *   hint of anything newer   ──> the log is read from head on
 *   no hint for a while      ──> the log is read from head on, in case that one was lost
 */
@Injectable()
export class EventFeed implements OnModuleInit, OnModuleDestroy {
  private readonly logger = new Logger(EventFeed.name)
  private readonly waiting = new Set<() => void>()
  /** Contiguous, and the last one is at `headPosition`. */
  private recent: LoggedEvent[] = []
  private headPosition = 0
  private logId = 0
  private subscription: number | undefined
  private safetyLook: NodeJS.Timeout | undefined
  private looking: Promise<void> | undefined
  private lookAgain = false
  private readonly lostHints = new LostHints()

  constructor(
    private readonly log: EventLog,
    private readonly pubSub: PubSubEngine,
  ) {}

  async onModuleInit(): Promise<void> {
    const { logId, position } = await this.log.head()
    this.logId = logId
    this.headPosition = position
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

  async onModuleDestroy(): Promise<void> {
    clearInterval(this.safetyLook)
    if (this.subscription !== undefined) this.pubSub.unsubscribe(this.subscription)
    await this.looking
  }

  /** Position of the newest event that this node has seen. */
  get head(): number {
    return this.headPosition
  }

  /** How often the safety look has found events that no hint had told of. More than a few: look after PubSub. */
  get lostHintCount(): number {
    return this.lostHints.count
  }

  cursorOf(position: number): string {
    return toCursor(this.logId, position)
  }

  /**
   * Every event that `options` ask for, from then on without end; see `Follower`.
   * @throws CursorUnknown when `after` is not a cursor of this log, or lies beyond its end
   */
  async follow(options: FollowOptions & { after?: string | null | undefined }): Promise<Follower> {
    if (options.after == null) return new Follower(this, this.log, options)
    const position = positionOf(options.after, this.logId)
    // Another node may have seen more than this one.
    if (position > this.headPosition && position > (await this.log.head()).position) {
      throw new CursorUnknown(options.after)
    }
    return new Follower(this, this.log, { ...options, position })
  }

  /** The first `limit` events after a position up to the head, or undefined when they are no longer in memory. */
  recentAfter(position: number, limit: number): LoggedEvent[] | undefined {
    const start = this.recent.length - (this.headPosition - position)
    return start < 0 ? undefined : this.recent.slice(start, start + limit)
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
    else if (event) this.look()
    // "There may be anything": whatever is there now has been told of.
    else void this.lookToEnd().then(() => this.lostHints.told(this.headPosition))
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

  private accept(event: LoggedEvent): void {
    if (event.position !== this.headPosition + 1) return
    this.headPosition = event.position
    this.recent.push(event)
    if (this.recent.length > 2 * RECENT_EVENTS) this.recent = this.recent.slice(-RECENT_EVENTS)
    for (const wake of [...this.waiting]) wake()
  }
}
