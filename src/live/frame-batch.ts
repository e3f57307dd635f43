/** The beginning of a member's messages. A string: small buffers would each keep a slab of Node's pool alive. */
export interface FramePrefix {
  text: string
  byteLength: number
}

/** RFC 6455, section 5.2: final fragment of a text message; a server does not mask. */
const TEXT_FRAME = 0x81
/** RFC 6455, section 5.2: 7, 7 + 16 or 7 + 64 bits of length. */
const SHORT_LENGTH = 126
const LONG_LENGTH = 65_536

/** Frames as bytes, for starts of one length; `slots` are where those go. */
interface ComposedFrames {
  bytes: Buffer
  prefixOffsets: readonly number[]
  prefixBytes: number
}

/**
 * What a socket is sent in one turn: the ends of its frames, in order, as a chain in which those who send the same share
 * each link. So the bytes are put together once for all of them; from one socket to the next only the starts change.
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

  /** This and one more. */
  append(rest: Uint8Array): FrameBatch {
    if (this.next?.suffix !== rest) this.next = new FrameBatch(this, rest)
    return this.next
  }

  /** All frames, each with this start. The next call writes to the same bytes, unless they have been given away. */
  bytesFor(start: FramePrefix): Buffer {
    if (this.composed?.prefixBytes !== start.byteLength) {
      this.composed = compose(this.suffixes(), new Array(this.count).fill(start.byteLength))
    }
    const { bytes, prefixOffsets: slots } = this.composed
    const [first = 0] = slots
    bytes.write(start.text, first, 'utf8')
    for (const slot of slots) if (slot !== first) bytes.copyWithin(slot, first, first + start.byteLength)
    return bytes
  }

  /** All frames, each with a start of its own. */
  bytesForEach(starts: readonly FramePrefix[]): Buffer {
    const { bytes, prefixOffsets: slots } = compose(
      this.suffixes(),
      starts.map((start) => start.byteLength),
    )
    for (const [i, slot] of slots.entries()) bytes.write(starts[i]?.text ?? '', slot, 'utf8')
    return bytes
  }

  /** The last bytes that were made are somebody's now, and must not change. */
  detach(): void {
    this.composed = undefined
  }

  private suffixes(): Uint8Array[] {
    const rests: Uint8Array[] = []
    for (let batch: FrameBatch = this; batch.previous; batch = batch.previous) rests.push(batch.suffix)
    return rests.reverse()
  }
}

export function frameByteLength(start: FramePrefix, rest: Uint8Array): number {
  const length = start.byteLength + rest.byteLength
  return headerByteLength(length) + length
}

/** A message of one socket's own, in one piece: `ws` writes the header and the text as two. */
export function textFrame(text: string): Buffer {
  const length = Buffer.byteLength(text)
  const bytes = Buffer.allocUnsafe(headerByteLength(length) + length)
  bytes.write(text, writeHeader(bytes, 0, length))
  return bytes
}

function compose(rests: readonly Uint8Array[], startBytes: readonly number[]): ComposedFrames {
  const lengths = rests.map((rest, i) => (startBytes[i] ?? 0) + rest.byteLength)
  const bytes = Buffer.allocUnsafe(
    lengths.reduce((sum, length) => sum + headerByteLength(length) + length, 0),
  )
  const slots: number[] = []
  let offset = 0
  for (const [i, rest] of rests.entries()) {
    offset = writeHeader(bytes, offset, lengths[i] ?? 0)
    slots.push(offset)
    offset += startBytes[i] ?? 0
    bytes.set(rest, offset)
    offset += rest.byteLength
  }
  return { bytes, prefixOffsets: slots, prefixBytes: startBytes[0] ?? 0 }
}

function headerByteLength(length: number): number {
  return length < SHORT_LENGTH ? 2 : length < LONG_LENGTH ? 4 : 10
}

/** Returns the offset behind it. */
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
