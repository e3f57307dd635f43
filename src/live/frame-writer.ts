import type { Duplex } from 'node:stream'
import { FrameBatch, type FramePrefix, frameByteLength } from './frame-batch.ts'

/** What one socket may have unsent in this process before it is not written to any more. */
const MAX_UNSENT_BYTES = 256 * 1024

/** Writers that have something to send, flushed together at the end of the turn. */
let dirtyWriters: FrameWriter[] = []
/** Where the batches of this turn begin. */
let emptyBatch = new FrameBatch()

/**
 * Writes text frames to one socket: all of a turn in one write. Whoever shares the socket calls `flush` first, so that
 * frames keep their order.
 */
export class FrameWriter {
  /** The frames of this turn. */
  private batch: FrameBatch | undefined
  /** The start of them all, or of the first one; */
  private prefix: FramePrefix | undefined
  /** of each of them, where they differ. */
  private prefixes: FramePrefix[] | undefined
  private pendingBytes = 0
  /** Made when somebody waits: mostly there is room. */
  private writableCallbacks: Set<() => void> | undefined
  private isDraining = false
  private isPaused = false
  private hasEnded = false
  /** When this socket last took something, by `performance.now()`; read while somebody waits for room. */
  lastProgressAt = 0

  constructor(private readonly socket: Duplex) {}

  /** Bytes in this process that the operating system has not taken yet. */
  get unsentBytes(): number {
    return this.pendingBytes + this.socket.writableLength
  }

  get isWritable(): boolean {
    return !this.isDraining && !this.isPaused && this.unsentBytes < MAX_UNSENT_BYTES
  }

  get isStalled(): boolean {
    return this.writableCallbacks !== undefined && !this.isPaused
  }

  /** One text frame, in two parts, which are put together when the turn ends. */
  push(start: FramePrefix, rest: Uint8Array): void {
    if (this.hasEnded) return
    if (!this.batch) {
      if (dirtyWriters.length === 0) setImmediate(flushDirty)
      dirtyWriters.push(this)
      this.prefix = start
    } else if (this.prefixes) {
      this.prefixes.push(start)
    } else if (this.prefix !== start) {
      this.prefixes = [...new Array(this.batch.count).fill(this.prefix), start]
    }
    this.batch = (this.batch ?? emptyBatch).append(rest)
    this.pendingBytes += frameByteLength(start, rest)
  }

  flush(): void {
    const { batch, prefix: start, prefixes: starts } = this
    if (!batch || !start) return
    this.batch = this.prefix = this.prefixes = undefined
    this.pendingBytes = 0
    if (!this.socket.writable) return
    this.socket.write(starts ? batch.bytesForEach(starts) : batch.bytesFor(start))
    // What the operating system has not taken at once is read again later.
    if (this.socket.writableLength > 0) batch.detach()
    if (this.writableCallbacks) this.notifyWritable()
  }

  /** Calls back once there is room; at once in a later turn, if there is some by then. Returns what takes that back. */
  onceWritable(callback: () => void): () => void {
    if (!this.writableCallbacks) this.lastProgressAt = performance.now()
    this.writableCallbacks ??= new Set()
    this.writableCallbacks.add(callback)
    if (!this.batch) setImmediate(() => this.notifyWritable())
    return () => {
      this.writableCallbacks?.delete(callback)
      if (this.writableCallbacks?.size === 0) this.writableCallbacks = undefined
    }
  }

  /** Until it is released it has no room: nothing new is written. */
  pause(): void {
    this.isPaused = true
  }

  resume(): void {
    this.isPaused = false
    this.lastProgressAt = performance.now()
    if (!this.batch) setImmediate(() => this.notifyWritable())
  }

  /** Sends what there is, and takes no more: the socket is being closed. */
  end(): void {
    this.flush()
    this.hasEnded = true
  }

  private notifyWritable(): void {
    if (!this.writableCallbacks || this.isDraining || this.isPaused) return
    if (this.unsentBytes >= MAX_UNSENT_BYTES) {
      this.isDraining = true
      this.socket.once('drain', () => {
        this.isDraining = false
        this.notifyWritable()
      })
      return
    }
    this.lastProgressAt = performance.now()
    const callbacks = this.writableCallbacks
    this.writableCallbacks = undefined
    for (const callback of callbacks) callback()
  }
}

function flushDirty(): void {
  const writers = dirtyWriters
  dirtyWriters = []
  for (const writer of writers) writer.flush()
  emptyBatch = new FrameBatch()
}
