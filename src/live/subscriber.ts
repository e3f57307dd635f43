import { setTimeout as sleep } from 'node:timers/promises'
import type { Subject } from '../auth/rights.ts'
import { DatabaseUnavailableError } from '../database/errors.ts'
import type { EventBatch, EventStream, OrderedEvent } from '../events/event-stream.ts'
import type { Operation } from './connection.ts'
import type { FramePrefix } from './frame-batch.ts'
import type { FrameWriter } from './frame-writer.ts'
import type { EncodedEvent, LiveSubscriber, SharedSubscription } from './shared-subscription.ts'

const DATABASE_RETRY_MS = 500
const EMPTY_PAYLOAD = new Uint8Array()

/** The socket of a subscriber. */
export interface SubscriberSocket {
  readonly writer: FrameWriter
  readonly subject: Subject
  onOperationFailed(operationId: string, error: unknown): void
}

/**
 * One subscriber of a shared subscription.
 *
 *   started ──> catching up ──> live (in `liveSubscribers`)
 *                   ^             │ the socket is not writable
 *                   └─────────────┘
 *
 * Its only state is a position: while it is live, that of the shared subscription. There can be very many
 * subscribers, so everything that can be shared belongs to the shared subscription.
 */
export class Subscriber implements Operation, LiveSubscriber {
  private readonly writer: FrameWriter
  private readonly prefix: FramePrefix
  /** Undefined: the snapshot comes first. */
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

  /** From now on events are sent. */
  start(): void {
    this.catchUp()
  }

  end(): void {
    if (this.hasEnded) return
    this.hasEnded = true
    this.cancelWait?.()
    this.subscription.remove(this, this.socket.subject.id)
  }

  send(event: OrderedEvent, encoded: Uint8Array): void {
    // While the shared subscription waited for an execution, this one may have caught up further.
    if (this.position !== undefined && event.position <= this.position) return
    if (!this.writer.isWritable) {
      this.subscription.liveSubscribers.delete(this)
      this.subscription.metrics.lagging.inc()
      this.catchUpFrom(event.position - 1)
    } else if (!this.stream.isEcho(event)) {
      this.write(encoded)
    }
  }

  catchUpFrom(position: number): void {
    // The subscriber may have caught up further than the shared subscription.
    this.position = Math.max(position, this.position ?? position)
    this.catchUp()
  }

  /** Never throws: its callers serve other subscribers as well. */
  private catchUp(): void {
    try {
      this.catchUpNow()
    } catch (error) {
      this.fail(error)
    }
  }

  /** In one turn if the missing events are in memory and quickly encoded: no event can come in between. */
  private catchUpNow(): void {
    if (this.isReading) return
    const { subscription, writer } = this
    while (!this.hasEnded) {
      if (this.position !== undefined && this.position >= subscription.position) {
        subscription.liveSubscribers.add(this)
        return
      }
      if (!writer.isWritable) {
        this.cancelWait = writer.onceWritable(() => this.catchUp())
        return
      }
      const batch = this.readBatch()
      if (batch instanceof Promise || !this.sendBatch(batch)) {
        void this.catchUpAsync(batch)
        return
      }
    }
  }

  private readBatch(): EventBatch | Promise<EventBatch> {
    const { source } = this.subscription
    return this.position === undefined ? source.snapshot() : source.readAfter(this.position)
  }

  /** Returns false if an execution must be awaited or scheduled; then nothing was sent. */
  private sendBatch({ events, until }: EventBatch): boolean {
    const { subscription } = this
    const payloads: Uint8Array[] = []
    for (const event of events) {
      if (this.isSkipped(event)) continue
      if (subscription.scheduler.isSliceOver && !subscription.hasEncoded(event)) return false
      const encoded = subscription.encode(event)
      if (encoded instanceof Promise) return false
      payloads.push(encoded)
    }
    for (const payload of payloads) this.write(payload)
    if (payloads.length > 0) subscription.metrics.deliveries.inc(payloads.length)
    this.position = until
    return true
  }

  /** The same if a read of the source or an execution must be awaited. */
  private async catchUpAsync(reading: EventBatch | Promise<EventBatch>): Promise<void> {
    this.isReading = true
    let sentUntil = this.position
    try {
      const { events, until } = await reading
      for (const event of events) {
        if (this.isSkipped(event)) continue
        const encoded = await this.encodeScheduled(event)
        if (this.hasEnded) return
        this.write(encoded)
        // After a failure, the event is not sent again. Snapshots are also in ascending order.
        sentUntil = event.position
      }
      this.position = until
    } catch (error) {
      if (!(error instanceof DatabaseUnavailableError)) {
        this.fail(error)
        return
      }
      // An incomplete snapshot is read again: its positions do not show what is missing.
      if (this.position !== undefined) this.position = sentUntil
      await sleep(DATABASE_RETRY_MS, undefined, { ref: false })
    } finally {
      this.isReading = false
    }
    this.catchUp()
  }

  private encodeScheduled(event: OrderedEvent): EncodedEvent {
    const { subscription } = this
    if (!subscription.scheduler.isSliceOver || subscription.hasEncoded(event))
      return subscription.encode(event)
    return new Promise((resolve, reject) => {
      subscription.scheduler.scheduleCatchUp(this.socket.subject.id, () => {
        try {
          resolve(this.hasEnded ? EMPTY_PAYLOAD : subscription.encode(event))
        } catch (error) {
          reject(error)
        }
      })
    })
  }

  /** A snapshot is never an echo. */
  private isSkipped(event: OrderedEvent): boolean {
    return this.position !== undefined && this.stream.isEcho(event)
  }

  private write(payload: Uint8Array): void {
    this.writer.push(this.prefix, payload)
  }

  private fail(error: unknown): void {
    // Once it has ended, the operation id may belong to another operation.
    if (this.hasEnded) return
    this.end()
    this.socket.onOperationFailed(this.operationId, error)
  }
}
