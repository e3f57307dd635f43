/*
 * Git's framing (gitprotocol-common(5)): four hex digits of length, their own included, then the bytes; 0000 is a flush.
 */

const FLUSH = 'flush'
type Packet = Buffer | typeof FLUSH

/** Longer payloads are not allowed in one packet. */
const MOST_PAYLOAD_BYTES = 65_516

/** Reading packets holds up everything else on the node; 20,000 are a tenth of a second. */
const MAX_PACKETS = 20_000

export const FLUSH_PACKET = Buffer.from('0000')

export function packet(payload: string): Buffer {
  const bytes = Buffer.from(payload)
  if (bytes.length > MOST_PAYLOAD_BYTES)
    throw new Error(`A packet of ${bytes.length} bytes is too long for git.`)
  return Buffer.concat([Buffer.from((bytes.length + 4).toString(16).padStart(4, '0')), bytes])
}

/** Throws `NotGit` where the bytes are not packets to the end, or too many. */
export function* packets(bytes: Buffer): Generator<Packet> {
  let count = 0
  for (let at = 0; at < bytes.length; ) {
    if (++count > MAX_PACKETS) throw new NotGit(`the answer has more than ${MAX_PACKETS} lines`)
    const digits = bytes.toString('latin1', at, at + 4)
    if (!/^[0-9a-f]{4}$/i.test(digits)) throw new NotGit()
    const length = Number.parseInt(digits, 16)
    if (length === 0) {
      yield FLUSH
      at += 4
    } else {
      if (length < 4 || at + length > bytes.length) throw new NotGit()
      yield bytes.subarray(at + 4, at + length)
      at += length
    }
  }
}

/** Lines of text up to the end, flushes left out, each without its newline. */
export function lines(bytes: Buffer): string[] {
  return [...packets(bytes)].flatMap((each) =>
    each === FLUSH ? [] : [each.toString('utf8').replace(/\n$/, '')],
  )
}

/** What answered does not speak git's protocol, or was cut off. */
export class NotGit extends Error {
  override readonly name = 'NotGit'

  constructor(message = 'the answer is not in git’s protocol, or is cut off') {
    super(message)
  }
}
