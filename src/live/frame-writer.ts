import type { Duplex } from 'node:stream'

/** What one socket may have unsent in this process before it is not written to any more. */
const MOST_UNSENT_BYTES = 256 * 1024
/** RFC 6455, section 5.2: final fragment of a text message; a server does not mask. */
const TEXT_FRAME = 0x81

/** Writers that have something to send, flushed together at the end of the turn. */
const dirty = new Set<FrameWriter>()

/**
 * Writes text frames to one socket: all of a turn in one write. Whoever shares the socket calls `flush` first, so that
 * frames keep their order.
 */
export class FrameWriter {
  private parts: Uint8Array[] = []
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
    return this.unsentBytes < MOST_UNSENT_BYTES && !this.isDraining
  }

  get isStalled(): boolean {
    return this.waiting.size > 0
  }

  /** One text frame, in two parts, which are copied when the turn ends. */
  push(start: Uint8Array, rest: Uint8Array): void {
    const length = start.byteLength + rest.byteLength
    const header = frameHeader(length)
    this.parts.push(header, start, rest)
    this.pendingBytes += header.byteLength + length
    if (dirty.size === 0) setImmediate(flushDirty)
    dirty.add(this)
  }

  flush(): void {
    if (this.parts.length === 0) return
    const { parts, pendingBytes } = this
    this.parts = []
    this.pendingBytes = 0
    dirty.delete(this)
    if (!this.socket.writable) return
    this.socket.write(concat(parts, pendingBytes))
    this.makeRoom()
  }

  /** Calls back once there is room; at once in a later turn, if there is some by then. Returns what takes that back. */
  whenRoom(callback: () => void): () => void {
    if (this.waiting.size === 0) this.lastProgressAt = performance.now()
    this.waiting.add(callback)
    if (this.parts.length === 0) setImmediate(() => this.makeRoom())
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
  for (const writer of dirty) writer.flush()
}

/** RFC 6455, section 5.2: 7, 7 + 16 or 7 + 64 bits of length. */
function frameHeader(length: number): Uint8Array {
  if (length < 126) return Uint8Array.of(TEXT_FRAME, length)
  if (length < 65_536) return Uint8Array.of(TEXT_FRAME, 126, length >> 8, length & 255)
  const header = Buffer.alloc(10)
  header[0] = TEXT_FRAME
  header[1] = 127
  header.writeBigUInt64BE(BigInt(length), 2)
  return header
}

function concat(parts: readonly Uint8Array[], length: number): Buffer {
  const whole = Buffer.allocUnsafe(length)
  let offset = 0
  for (const part of parts) {
    whole.set(part, offset)
    offset += part.byteLength
  }
  return whole
}
