/** The start of a subscriber's messages. A string: a small buffer would keep a slab of Node's pool alive. */
export interface FramePrefix {
  text: string
  byteLength: number
}

/** RFC 6455, section 5.2: final fragment of a text message; a server does not mask. */
const TEXT_FRAME = 0x81
/** RFC 6455, section 5.2: 7, 7 + 16 or 7 + 64 bits of length. */
const SHORT_LENGTH = 126
const LONG_LENGTH = 65_536

/** Frames as bytes; prefixes of one length go to `prefixOffsets`. */
interface ComposedFrames {
  bytes: Buffer
  prefixOffsets: readonly number[]
  prefixBytes: number
}

/**
 * The frames of a socket in one turn of the event loop: their suffixes, in order, as a linked list whose
 * nodes are shared by all sockets that get the same frames. The bytes are composed once for all of them; from
 * one socket to the next only the prefixes change.
 */
export class FrameBatch {
  readonly count: number
  private next: FrameBatch | undefined
  private composed: ComposedFrames | undefined

  constructor(
    private readonly previous?: FrameBatch,
    private readonly suffix: Uint8Array = new Uint8Array(),
  ) {
    this.count = previous ? previous.count + 1 : 0
  }

  /** This batch and one more frame. */
  append(suffix: Uint8Array): FrameBatch {
    if (this.next?.suffix !== suffix) this.next = new FrameBatch(this, suffix)
    return this.next
  }

  /** All frames, each with this prefix. The next call overwrites these bytes, unless they were detached. */
  bytesFor(prefix: FramePrefix): Buffer {
    const { text, byteLength } = prefix
    if (this.composed?.prefixBytes !== byteLength) {
      this.composed = compose(this.suffixes(), new Array(this.count).fill(byteLength))
    }
    const { bytes, prefixOffsets } = this.composed
    const [first = 0] = prefixOffsets
    bytes.write(text, first, 'utf8')
    for (const offset of prefixOffsets) {
      if (offset !== first) bytes.copyWithin(offset, first, first + byteLength)
    }
    return bytes
  }

  /** All frames, each with its own prefix. */
  bytesForEach(prefixes: readonly FramePrefix[]): Buffer {
    const prefixLengths = prefixes.map(({ byteLength }) => byteLength)
    const { bytes, prefixOffsets } = compose(this.suffixes(), prefixLengths)
    for (const [i, offset] of prefixOffsets.entries()) bytes.write(prefixes[i]?.text ?? '', offset, 'utf8')
    return bytes
  }

  /** The bytes composed last now belong to the caller, and must not change. */
  detach(): void {
    this.composed = undefined
  }

  private suffixes(): Uint8Array[] {
    const suffixes: Uint8Array[] = []
    for (let batch: FrameBatch = this; batch.previous; batch = batch.previous) suffixes.push(batch.suffix)
    return suffixes.reverse()
  }
}

export function frameByteLength(prefix: FramePrefix, suffix: Uint8Array): number {
  const length = prefix.byteLength + suffix.byteLength
  return headerByteLength(length) + length
}

/** A message for one socket only, in one piece: `ws` writes the header and the text separately. */
export function textFrame(text: string): Buffer {
  const length = Buffer.byteLength(text)
  const bytes = Buffer.allocUnsafe(headerByteLength(length) + length)
  bytes.write(text, writeHeader(bytes, 0, length))
  return bytes
}

function compose(suffixes: readonly Uint8Array[], prefixLengths: readonly number[]): ComposedFrames {
  const lengths = suffixes.map((suffix, i) => (prefixLengths[i] ?? 0) + suffix.byteLength)
  const bytes = Buffer.allocUnsafe(
    lengths.reduce((sum, length) => sum + headerByteLength(length) + length, 0),
  )
  const prefixOffsets: number[] = []
  let offset = 0
  for (const [i, suffix] of suffixes.entries()) {
    offset = writeHeader(bytes, offset, lengths[i] ?? 0)
    prefixOffsets.push(offset)
    offset += prefixLengths[i] ?? 0
    bytes.set(suffix, offset)
    offset += suffix.byteLength
  }
  return { bytes, prefixOffsets, prefixBytes: prefixLengths[0] ?? 0 }
}

function headerByteLength(length: number): number {
  return length < SHORT_LENGTH ? 2 : length < LONG_LENGTH ? 4 : 10
}

/** Returns the offset after the header. */
function writeHeader(bytes: Buffer, at: number, length: number): number {
  bytes[at] = TEXT_FRAME
  if (length < SHORT_LENGTH) {
    bytes[at + 1] = length
  } else if (length < LONG_LENGTH) {
    bytes[at + 1] = 126
    bytes.writeUInt16BE(length, at + 2)
  } else {
    bytes[at + 1] = 127
    bytes.writeBigUInt64BE(BigInt(length), at + 2)
  }
  return at + headerByteLength(length)
}
