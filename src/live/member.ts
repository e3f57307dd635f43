import { setTimeout as sleep } from 'node:timers/promises'
import type { Subject } from '../auth/rights.ts'
import { DatabaseUnavailable } from '../database/database-errors.ts'
import type { Stretch } from '../events/event-feed.ts'
import type { FollowRequest } from '../events/follower.ts'
import type { LoggedEvent } from '../events/logged-event.ts'
import type { Operation } from './connection.ts'
import type { FrameStart } from './frame-batch.ts'
import type { FrameWriter } from './frame-writer.ts'
import type { Encoded, Group } from './group.ts'

const DATABASE_PAUSE_MS = 500
const NOTHING = new Uint8Array()

/** Whose subscription it is. */
export interface Viewer {
  readonly writer: FrameWriter
  readonly subject: Subject
  /** Ends the operation with an error. */
  fail(operationId: string, errors: readonly unknown[]): Promise<void>
}

/**
 * One subscription in a group.
 *
 *   begun ──> catching up ──> live (in `group.live`)
 *                 ^             │ the socket takes no more
 *                 └─────────────┘
 *
 * It keeps a position and nothing else; while it is live not even that: it is where its group is. There may be very
 * many, so that what can be the group's is the group's.
 */
export class Member implements Operation {
  private readonly writer: FrameWriter
  private readonly start: FrameStart
  private position: number | undefined
  private isReading = false
  private hasEnded = false
  private takeBack: (() => void) | undefined

  constructor(
    private readonly operationId: string,
    private readonly request: FollowRequest,
    private readonly group: Group,
    private readonly viewer: Viewer,
  ) {
    const text = `{"id":${JSON.stringify(operationId)}`
    this.writer = viewer.writer
    this.start = { text, bytes: Buffer.byteLength(text) }
    this.position = request.position
  }

  /** From now on frames are sent. */
  begin(): void {
    this.catchUp()
  }

  end(): void {
    if (this.hasEnded) return
    this.hasEnded = true
    this.takeBack?.()
    this.group.leave(this, this.viewer.subject.id)
  }

  /** The next event of a live member. */
  send(event: LoggedEvent, payload: Uint8Array): void {
    // It may have read on further than its group, which waits for an execution.
    if (this.position !== undefined && event.position <= this.position) return
    if (!this.writer.hasRoom) {
      this.group.live.delete(this)
      this.group.metrics.lagging.inc()
      this.readOnFrom(event.position - 1)
    } else if (!this.request.isEcho(event)) {
      this.write(payload)
    }
  }

  /** Leaves the live ones; gets what follows by itself until it is one of them again. */
  readOnFrom(position: number): void {
    // It may have read on further than its group.
    this.position = Math.max(position, this.position ?? position)
    this.catchUp()
  }

  /** Never throws: whoever calls it has others to look after. */
  private catchUp(): void {
    try {
      this.catchUpNow()
    } catch (error) {
      this.fail(error)
    }
  }

  /** All in one turn when what is missing is in memory and encoded or quickly so: then there is no gap to fall into. */
  private catchUpNow(): void {
    if (this.isReading) return
    const { group, writer } = this
    while (!this.hasEnded) {
      if (this.position !== undefined && this.position >= group.position) {
        group.live.add(this)
        return
      }
      if (!writer.hasRoom) {
        this.takeBack = writer.whenRoom(() => this.catchUp())
        return
      }
      const stretch = this.read(this.position)
      const sent = stretch instanceof Promise ? undefined : this.sendStretch(stretch)
      if (sent !== true) {
        void this.catchUpLater(stretch)
        return
      }
    }
  }

  private read(position: number | undefined): Stretch | Promise<Stretch> {
    const { feed } = this.group
    const { deploymentId } = this.request.options
    return position === undefined ? feed.current(deploymentId) : feed.since(position, deploymentId)
  }

  /** False: an execution has to be waited for, or put off, and nothing was sent. */
  private sendStretch({ events, until }: Stretch): boolean {
    const { group } = this
    const payloads: Uint8Array[] = []
    for (const event of events) {
      if (!this.isWanted(event)) continue
      if (group.slices.isOver && !group.hasEncoded(event)) return false
      const payload = group.encode(event)
      if (payload instanceof Promise) return false
      payloads.push(payload)
    }
    for (const payload of payloads) this.write(payload)
    if (payloads.length > 0) group.metrics.deliveries.inc(payloads.length)
    this.position = until
    return true
  }

  /** The same, where something has to be waited for: a read of the log, or an execution. */
  private async catchUpLater(stretch: Stretch | Promise<Stretch>): Promise<void> {
    this.isReading = true
    const isNow = this.position === undefined
    let sentUntil = this.position
    try {
      const { events, until } = await stretch
      for (const event of events) {
        if (!this.isWanted(event)) continue
        const payload = await this.encodeInTurn(event)
        if (this.hasEnded) return
        this.write(payload)
        // From here on a failure must not tell it again; the state now is told in ascending order as well.
        sentUntil = event.position
      }
      this.position = until
    } catch (error) {
      if (!(error instanceof DatabaseUnavailable)) {
        this.fail(error)
        return
      }
      // The place is kept; while the database is away there is nothing to read.
      if (!isNow) this.position = sentUntil
      await sleep(DATABASE_PAUSE_MS, undefined, { ref: false })
    } finally {
      this.isReading = false
    }
    this.catchUp()
  }

  private encodeInTurn(event: LoggedEvent): Encoded {
    const { group } = this
    if (!group.slices.isOver || group.hasEncoded(event)) return group.encode(event)
    return new Promise((resolve, reject) => {
      group.slices.catchUpLater(this.viewer.subject.id, () => {
        try {
          // Whoever has left meanwhile is sent nothing.
          resolve(this.hasEnded ? NOTHING : group.encode(event))
        } catch (error) {
          reject(error)
        }
      })
    })
  }

  /** Still to be told the state now. */
  private get isNow(): boolean {
    return this.position === undefined
  }

  private isWanted(event: LoggedEvent): boolean {
    return this.isNow ? this.request.isAbout(event) : this.request.wants(event)
  }

  private write(payload: Uint8Array): void {
    this.writer.push(this.start, payload)
  }

  private fail(error: unknown): void {
    // The id may be another operation's by now.
    if (this.hasEnded) return
    this.end()
    void this.viewer.fail(this.operationId, [error])
  }
}
