import type { Duplex } from 'node:stream'
import { FrameBatch, type FrameStart, frameBytes } from './frame-batch.ts'

/** What one socket may have unsent in this process before it is not written to any more. */
const MOST_UNSENT_BYTES = 256 * 1024

/** Writers that have something to send, flushed together at the end of the turn. */
let dirty: FrameWriter[] = []
/** Where the batches of this turn begin. */
let nothing = new FrameBatch()

/**
 * Writes text frames to one socket: all of a turn in one write. Whoever shares the socket calls `flush` first, so that
 * frames keep their order.
 */
export class FrameWriter {
  /** The frames of this turn. */
  private batch: FrameBatch | undefined
  /** The start of them all, or of the first one; */
  private start: FrameStart | undefined
  /** of each of them, where they differ. */
  private starts: FrameStart[] | undefined
  private pendingBytes = 0
  /** Made when somebody waits: mostly there is room. */
  private waiting: Set<() => void> | undefined
  private isDraining = false
  private isHeld = false
  private hasEnded = false
  /** When this socket last took something, by `performance.now()`; read while somebody waits for room. */
  lastProgressAt = 0

  constructor(private readonly socket: Duplex) {}

  /** Bytes in this process that the operating system has not taken yet. */
  get unsentBytes(): number {
    return this.pendingBytes + this.socket.writableLength
  }

  get hasRoom(): boolean {
    return !this.isDraining && !this.isHeld && this.unsentBytes < MOST_UNSENT_BYTES
  }

  get isStalled(): boolean {
    return this.waiting !== undefined && !this.isHeld
  }

  /** One text frame, in two parts, which are put together when the turn ends. */
  push(start: FrameStart, rest: Uint8Array): void {
    if (this.hasEnded) return
    if (!this.batch) {
      if (dirty.length === 0) setImmediate(flushDirty)
      dirty.push(this)
      this.start = start
    } else if (this.starts) {
      this.starts.push(start)
    } else if (this.start !== start) {
      this.starts = [...new Array(this.batch.count).fill(this.start), start]
    }
    this.batch = (this.batch ?? nothing).with(rest)
    this.pendingBytes += frameBytes(start, rest)
  }

  flush(): void {
    const { batch, start, starts } = this
    if (!batch || !start) return
    this.batch = this.start = this.starts = undefined
    this.pendingBytes = 0
    if (!this.socket.writable) return
    this.socket.write(starts ? batch.bytesForEach(starts) : batch.bytesFor(start))
    // What the operating system has not taken at once is read again later.
    if (this.socket.writableLength > 0) batch.giveAway()
    if (this.waiting) this.makeRoom()
  }

  /** Calls back once there is room; at once in a later turn, if there is some by then. Returns what takes that back. */
  whenRoom(callback: () => void): () => void {
    if (!this.waiting) this.lastProgressAt = performance.now()
    this.waiting ??= new Set()
    this.waiting.add(callback)
    if (!this.batch) setImmediate(() => this.makeRoom())
    return () => {
      this.waiting?.delete(callback)
      if (this.waiting?.size === 0) this.waiting = undefined
    }
  }

  /** Until it is released it has no room: nothing new is written. */
  hold(): void {
    this.isHeld = true
  }

  release(): void {
    this.isHeld = false
    this.lastProgressAt = performance.now()
    if (!this.batch) setImmediate(() => this.makeRoom())
  }

  /** Sends what there is, and takes no more: the socket is being closed. */
  end(): void {
    this.flush()
    this.hasEnded = true
  }

  private makeRoom(): void {
    if (!this.waiting || this.isDraining || this.isHeld) return
    if (this.unsentBytes >= MOST_UNSENT_BYTES) {
      this.isDraining = true
      this.socket.once('drain', () => {
        this.isDraining = false
        this.makeRoom()
      })
      return
    }
    this.lastProgressAt = performance.now()
    const callbacks = this.waiting
    this.waiting = undefined
    for (const callback of callbacks) callback()
  }
}

function flushDirty(): void {
  const writers = dirty
  dirty = []
  for (const writer of writers) writer.flush()
  nothing = new FrameBatch()
}
