import type { Duplex } from 'node:stream'
import { FrameBatch, type FramePrefix, frameByteLength } from './frame-batch.ts'

/** Nothing is written to a socket with this many unsent bytes. */
const MAX_UNSENT_BYTES = 256 * 1024

/** Writers with something to send, flushed together at the end of the turn. */
let dirtyWriters: FrameWriter[] = []
/** The root of all batches of this turn. */
let emptyBatch = new FrameBatch()

/**
 * Writes text frames to one socket: all frames of a turn of the event loop in one write. Other users of the
 * socket call `flush` first, so that frames stay in order.
 */
export class FrameWriter {
  /** The frames of this turn. */
  private batch: FrameBatch | undefined
  /** The prefix of all of them, … */
  private prefix: FramePrefix | undefined
  /** … or, if they differ, of each. */
  private prefixes: FramePrefix[] | undefined
  private pendingBytes = 0
  /** Created on first use: usually the socket is writable. */
  private writableCallbacks: Set<() => void> | undefined
  private isDraining = false
  private isPaused = false
  private hasEnded = false
  /** When the socket last accepted data, by `performance.now()`; meaningful while the writer is stalled. */
  lastProgressAt = 0

  constructor(private readonly socket: Duplex) {}

  /** Bytes in this process that the operating system has not accepted yet. */
  get unsentBytes(): number {
    return this.pendingBytes + this.socket.writableLength
  }

  get isWritable(): boolean {
    return !this.isDraining && !this.isPaused && this.unsentBytes < MAX_UNSENT_BYTES
  }

  /** Whether a subscriber is waiting for the socket to become writable. */
  get isStalled(): boolean {
    return this.writableCallbacks !== undefined && !this.isPaused
  }

  /** One text frame, in two parts, which are joined at the end of the turn. */
  push(prefix: FramePrefix, suffix: Uint8Array): void {
    if (this.hasEnded) return
    if (!this.batch) {
      if (dirtyWriters.length === 0) setImmediate(flushDirty)
      dirtyWriters.push(this)
      this.prefix = prefix
    } else if (this.prefixes) {
      this.prefixes.push(prefix)
    } else if (this.prefix !== prefix) {
      this.prefixes = [...new Array(this.batch.count).fill(this.prefix), prefix]
    }
    this.batch = (this.batch ?? emptyBatch).append(suffix)
    this.pendingBytes += frameByteLength(prefix, suffix)
  }

  flush(): void {
    const { batch, prefix, prefixes } = this
    if (!batch || !prefix) return
    this.batch = this.prefix = this.prefixes = undefined
    this.pendingBytes = 0
    if (!this.socket.writable) return
    this.socket.write(prefixes ? batch.bytesForEach(prefixes) : batch.bytesFor(prefix))
    // The stream still reads bytes that the operating system has not accepted at once.
    if (this.socket.writableLength > 0) batch.detach()
    if (this.writableCallbacks) this.notifyWritable()
  }

  /** Calls back when the socket is writable, in a later turn. Returns a function that cancels this. */
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

  /** Until `resume` the socket is not writable. */
  pause(): void {
    this.isPaused = true
  }

  resume(): void {
    this.isPaused = false
    this.lastProgressAt = performance.now()
    if (!this.batch) setImmediate(() => this.notifyWritable())
  }

  /** Flushes, and drops everything that follows: the socket is closing. */
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
