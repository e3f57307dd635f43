/** The beginning of a member's messages. A string: small buffers would each keep a slab of Node's pool alive. */
export interface FrameStart {
  text: string
  bytes: number
}

/** RFC 6455, section 5.2: final fragment of a text message; a server does not mask. */
const TEXT_FRAME = 0x81
/** RFC 6455, section 5.2: 7, 7 + 16 or 7 + 64 bits of length. */
const SHORT_LENGTH = 126
const LONG_LENGTH = 65_536

/** Frames as bytes, for starts of one length; `slots` are where those go. */
interface Composed {
  bytes: Buffer
  slots: readonly number[]
  startBytes: number
}

/**
 * What a socket is sent in one turn: the ends of its frames, in order, as a chain in which those who send the same share
 * each link. So the bytes are put together once for all of them; from one socket to the next only the starts change.
 */
export class FrameBatch {
  readonly count: number
  private following: FrameBatch | undefined
  private composed: Composed | undefined

  constructor(
    private readonly previous?: FrameBatch,
    private readonly rest: Uint8Array = new Uint8Array(),
  ) {
    this.count = previous ? previous.count + 1 : 0
  }

  /** This and one more. */
  with(rest: Uint8Array): FrameBatch {
    if (this.following?.rest !== rest) this.following = new FrameBatch(this, rest)
    return this.following
  }

  /** All frames, each with this start. The next call writes to the same bytes, unless they have been given away. */
  bytesFor(start: FrameStart): Buffer {
    if (this.composed?.startBytes !== start.bytes) {
      this.composed = compose(this.rests(), new Array(this.count).fill(start.bytes))
    }
    const { bytes, slots } = this.composed
    const [first = 0] = slots
    bytes.write(start.text, first, 'utf8')
    for (const slot of slots) if (slot !== first) bytes.copyWithin(slot, first, first + start.bytes)
    return bytes
  }

  /** All frames, each with a start of its own. */
  bytesForEach(starts: readonly FrameStart[]): Buffer {
    const { bytes, slots } = compose(
      this.rests(),
      starts.map((start) => start.bytes),
    )
    for (const [i, slot] of slots.entries()) bytes.write(starts[i]?.text ?? '', slot, 'utf8')
    return bytes
  }

  /** The last bytes that were made are somebody's now, and must not change. */
  giveAway(): void {
    this.composed = undefined
  }

  private rests(): Uint8Array[] {
    const rests: Uint8Array[] = []
    for (let batch: FrameBatch = this; batch.previous; batch = batch.previous) rests.push(batch.rest)
    return rests.reverse()
  }
}

export function frameBytes(start: FrameStart, rest: Uint8Array): number {
  const length = start.bytes + rest.byteLength
  return headerBytes(length) + length
}

/** A message of one socket's own, in one piece: `ws` writes the header and the text as two. */
export function textFrame(text: string): Buffer {
  const length = Buffer.byteLength(text)
  const bytes = Buffer.allocUnsafe(headerBytes(length) + length)
  bytes.write(text, writeHeader(bytes, 0, length))
  return bytes
}

function compose(rests: readonly Uint8Array[], startBytes: readonly number[]): Composed {
  const lengths = rests.map((rest, i) => (startBytes[i] ?? 0) + rest.byteLength)
  const bytes = Buffer.allocUnsafe(lengths.reduce((sum, length) => sum + headerBytes(length) + length, 0))
  const slots: number[] = []
  let offset = 0
  for (const [i, rest] of rests.entries()) {
    offset = writeHeader(bytes, offset, lengths[i] ?? 0)
    slots.push(offset)
    offset += startBytes[i] ?? 0
    bytes.set(rest, offset)
    offset += rest.byteLength
  }
  return { bytes, slots, startBytes: startBytes[0] ?? 0 }
}

function headerBytes(length: number): number {
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
  return at + headerBytes(length)
}
