import { setTimeout as sleep } from 'node:timers/promises'
import type { Subject } from '../auth/rights.ts'
import { DatabaseUnavailableError } from '../database/errors.ts'
import type { EventBatch, OrderedEvent } from '../events/event-source.ts'
import type { EventStream } from '../events/event-stream.ts'
import type { Operation } from './connection.ts'
import type { FramePrefix } from './frame-batch.ts'
import type { FrameWriter } from './frame-writer.ts'
import type { EncodedEvent, SharedSubscription } from './shared-subscription.ts'

const DATABASE_RETRY_MS = 500
const EMPTY_PAYLOAD = new Uint8Array()

/** Whose subscription it is. */
export interface SubscriberSocket {
  readonly writer: FrameWriter
  readonly subject: Subject
  /** Ends the operation with an error. */
  sendError(operationId: string, errors: readonly unknown[]): Promise<void>
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
export class Subscriber implements Operation {
  private readonly writer: FrameWriter
  private readonly prefix: FramePrefix
  private position: number | undefined
  private isReading = false
  private hasEnded = false
  private cancelWait: (() => void) | undefined

  constructor(
    private readonly operationId: string,
    private readonly stream: EventStream,
    private readonly subscription: SharedSubscription,
    private readonly socket: SubscriberSocket,
  ) {
    const text = `{"id":${JSON.stringify(operationId)}`
    this.writer = socket.writer
    this.prefix = { text, byteLength: Buffer.byteLength(text) }
    this.position = stream.position
  }

  /** From now on frames are sent. */
  startDelivery(): void {
    this.catchUp()
  }

  end(): void {
    if (this.hasEnded) return
    this.hasEnded = true
    this.cancelWait?.()
    this.subscription.remove(this, this.socket.subject.id)
  }

  /** The next event of a live member. */
  send(event: OrderedEvent, payload: Uint8Array): void {
    // It may have read on further than its group, which waits for an execution.
    if (this.position !== undefined && event.position <= this.position) return
    if (!this.writer.isWritable) {
      this.subscription.liveSubscribers.delete(this)
      this.subscription.metrics.lagging.inc()
      this.catchUpFrom(event.position - 1)
    } else if (!this.stream.isEcho(event)) {
      this.write(payload)
    }
  }

  /** Leaves the live ones; gets what follows by itself until it is one of them again. */
  catchUpFrom(position: number): void {
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
    const { subscription: group, writer } = this
    while (!this.hasEnded) {
      if (this.position !== undefined && this.position >= group.position) {
        group.liveSubscribers.add(this)
        return
      }
      if (!writer.isWritable) {
        this.cancelWait = writer.onceWritable(() => this.catchUp())
        return
      }
      const stretch = this.readBatch(this.position)
      const sent = stretch instanceof Promise ? undefined : this.sendBatch(stretch)
      if (sent !== true) {
        void this.catchUpAsync(stretch)
        return
      }
    }
  }

  private readBatch(position: number | undefined): EventBatch | Promise<EventBatch> {
    const { source } = this.subscription
    return position === undefined ? source.snapshot() : source.readAfter(position)
  }

  /** False: an execution has to be waited for, or put off, and nothing was sent. */
  private sendBatch({ events, until }: EventBatch): boolean {
    const { subscription: group } = this
    const payloads: Uint8Array[] = []
    for (const event of events) {
      if (this.skips(event)) continue
      if (group.scheduler.isSliceOver && !group.hasEncoded(event)) return false
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
  private async catchUpAsync(stretch: EventBatch | Promise<EventBatch>): Promise<void> {
    this.isReading = true
    const isNow = this.position === undefined
    let sentUntil = this.position
    try {
      const { events, until } = await stretch
      for (const event of events) {
        if (this.skips(event)) continue
        const payload = await this.encodeScheduled(event)
        if (this.hasEnded) return
        this.write(payload)
        // From here on a failure must not tell it again; the state now is told in ascending order as well.
        sentUntil = event.position
      }
      this.position = until
    } catch (error) {
      if (!(error instanceof DatabaseUnavailableError)) {
        this.fail(error)
        return
      }
      // The place is kept; while the database is away there is nothing to read.
      if (!isNow) this.position = sentUntil
      await sleep(DATABASE_RETRY_MS, undefined, { ref: false })
    } finally {
      this.isReading = false
    }
    this.catchUp()
  }

  private encodeScheduled(event: OrderedEvent): EncodedEvent {
    const { subscription: group } = this
    if (!group.scheduler.isSliceOver || group.hasEncoded(event)) return group.encode(event)
    return new Promise((resolve, reject) => {
      group.scheduler.scheduleCatchUp(this.socket.subject.id, () => {
        try {
          // Whoever has left meanwhile is sent nothing.
          resolve(this.hasEnded ? EMPTY_PAYLOAD : group.encode(event))
        } catch (error) {
          reject(error)
        }
      })
    })
  }

  /** The current state is sent even if this connection caused it. */
  private skips(event: OrderedEvent): boolean {
    return this.position !== undefined && this.stream.isEcho(event)
  }

  private write(payload: Uint8Array): void {
    this.writer.push(this.prefix, payload)
  }

  private fail(error: unknown): void {
    // The id may be another operation's by now.
    if (this.hasEnded) return
    this.end()
    void this.socket.sendError(this.operationId, [error])
  }
}
