import type { Duplex } from 'node:stream'

/** What one socket may have unsent in this process before it is not written to any more. */
const MOST_UNSENT_BYTES = 256 * 1024
/** RFC 6455, section 5.2: final fragment of a text message; a server does not mask. */
const TEXT_FRAME = 0x81

/** RFC 6455, section 5.2: 7, 7 + 16 or 7 + 64 bits of length. */
const SHORT_LENGTH = 126
const LONG_LENGTH = 65_536

/** The beginning of a member's messages. A string: small buffers would each keep a slab of Node's pool alive. */
export interface FrameStart {
  text: string
  bytes: number
}

/** Writers that have something to send, flushed together at the end of the turn. */
let dirty: FrameWriter[] = []

/**
 * Writes text frames to one socket: all of a turn in one write. Whoever shares the socket calls `flush` first, so that
 * frames keep their order.
 */
export class FrameWriter {
  private starts: FrameStart[] = []
  private rests: Uint8Array[] = []
  private pendingBytes = 0
  private readonly waiting = new Set<() => void>()
  private isDraining = false
  /** When this socket last took something, by `performance.now()`; read while somebody waits for room. */
  lastProgressAt = 0

  constructor(private readonly socket: Duplex) {}

  /** Bytes in this process that the operating system has not taken yet. */
  get unsentBytes(): number {
    return this.pendingBytes + this.socket.writableLength
  }

  get hasRoom(): boolean {
    return !this.isDraining && this.unsentBytes < MOST_UNSENT_BYTES
  }

  get isStalled(): boolean {
    return this.waiting.size > 0
  }

  /** One text frame, in two parts, which are copied when the turn ends. */
  push(start: FrameStart, rest: Uint8Array): void {
    if (this.starts.length === 0) {
      if (dirty.length === 0) setImmediate(flushDirty)
      dirty.push(this)
    }
    this.starts.push(start)
    this.rests.push(rest)
    const length = start.bytes + rest.byteLength
    this.pendingBytes += headerBytes(length) + length
  }

  flush(): void {
    if (this.starts.length === 0) return
    const { starts, rests, pendingBytes } = this
    this.starts = []
    this.rests = []
    this.pendingBytes = 0
    if (!this.socket.writable) return
    this.socket.write(frames(starts, rests, pendingBytes))
    if (this.waiting.size > 0) this.makeRoom()
  }

  /** Calls back once there is room; at once in a later turn, if there is some by then. Returns what takes that back. */
  whenRoom(callback: () => void): () => void {
    if (this.waiting.size === 0) this.lastProgressAt = performance.now()
    this.waiting.add(callback)
    if (this.starts.length === 0) setImmediate(() => this.makeRoom())
    return () => this.waiting.delete(callback)
  }

  private makeRoom(): void {
    if (this.waiting.size === 0 || this.isDraining) return
    if (this.unsentBytes >= MOST_UNSENT_BYTES) {
      this.isDraining = true
      this.socket.once('drain', () => {
        this.isDraining = false
        this.makeRoom()
      })
      return
    }
    this.lastProgressAt = performance.now()
    const callbacks = [...this.waiting]
    this.waiting.clear()
    for (const callback of callbacks) callback()
  }
}

function flushDirty(): void {
  const writers = dirty
  dirty = []
  for (const writer of writers) writer.flush()
}

function headerBytes(length: number): number {
  return length < SHORT_LENGTH ? 2 : length < LONG_LENGTH ? 4 : 10
}

function frames(starts: readonly FrameStart[], rests: readonly Uint8Array[], bytes: number): Buffer {
  const whole = Buffer.allocUnsafe(bytes)
  let offset = 0
  for (const [i, start] of starts.entries()) {
    const rest = rests[i] as Uint8Array
    const length = start.bytes + rest.byteLength
    whole[offset] = TEXT_FRAME
    if (length < SHORT_LENGTH) {
      whole[offset + 1] = length
    } else if (length < LONG_LENGTH) {
      whole[offset + 1] = 126
      whole.writeUInt16BE(length, offset + 2)
    } else {
      whole[offset + 1] = 127
      whole.writeBigUInt64BE(BigInt(length), offset + 2)
    }
    offset += headerBytes(length)
    offset += whole.write(start.text, offset)
    whole.set(rest, offset)
    offset += rest.byteLength
  }
  return whole
}
