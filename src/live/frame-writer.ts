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
  /** The first frame of the turn has no lists made for it: mostly it is the only one. */
  private firstStart: FrameStart | undefined
  private firstRest: Uint8Array | undefined
  private starts: FrameStart[] | undefined
  private rests: Uint8Array[] | undefined
  private pendingBytes = 0
  /** Made when somebody waits: mostly there is room. */
  private waiting: Set<() => void> | undefined
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
    return this.waiting !== undefined
  }

  /** One text frame, in two parts, which are copied when the turn ends. */
  push(start: FrameStart, rest: Uint8Array): void {
    if (!this.firstStart) {
      this.firstStart = start
      this.firstRest = rest
      if (dirty.length === 0) setImmediate(flushDirty)
      dirty.push(this)
    } else {
      this.starts ??= []
      this.rests ??= []
      this.starts.push(start)
      this.rests.push(rest)
    }
    const length = start.bytes + rest.byteLength
    this.pendingBytes += headerBytes(length) + length
  }

  flush(): void {
    const { firstStart, firstRest, starts = [], rests = [], pendingBytes } = this
    if (!firstStart || !firstRest) return
    this.firstStart = this.firstRest = this.starts = this.rests = undefined
    this.pendingBytes = 0
    if (!this.socket.writable) return
    const whole = Buffer.allocUnsafe(pendingBytes)
    let offset = writeFrame(whole, 0, firstStart, firstRest)
    for (let i = 0; i < starts.length; i++) {
      offset = writeFrame(whole, offset, starts[i] as FrameStart, rests[i] as Uint8Array)
    }
    this.socket.write(whole)
    if (this.waiting) this.makeRoom()
  }

  /** Calls back once there is room; at once in a later turn, if there is some by then. Returns what takes that back. */
  whenRoom(callback: () => void): () => void {
    if (!this.waiting) this.lastProgressAt = performance.now()
    this.waiting ??= new Set()
    this.waiting.add(callback)
    if (!this.firstStart) setImmediate(() => this.makeRoom())
    return () => {
      this.waiting?.delete(callback)
      if (this.waiting?.size === 0) this.waiting = undefined
    }
  }

  private makeRoom(): void {
    if (!this.waiting || this.isDraining) return
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
}

function headerBytes(length: number): number {
  return length < SHORT_LENGTH ? 2 : length < LONG_LENGTH ? 4 : 10
}

/** Returns the offset behind it. */
function writeFrame(whole: Buffer, at: number, start: FrameStart, rest: Uint8Array): number {
  const length = start.bytes + rest.byteLength
  whole[at] = TEXT_FRAME
  if (length < SHORT_LENGTH) {
    whole[at + 1] = length
  } else if (length < LONG_LENGTH) {
    whole[at + 1] = 126
    whole[at + 2] = length >> 8
    whole[at + 3] = length & 255
  } else {
    whole[at + 1] = 127
    whole.writeBigUInt64BE(BigInt(length), at + 2)
  }
  const offset = at + headerBytes(length)
  whole.write(start.text, offset)
  whole.set(rest, offset + start.bytes)
  return offset + length
}
