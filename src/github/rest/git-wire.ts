/*
 * What git says when it is pushed to: gitprotocol-http(5), gitprotocol-pack(5). Bytes in, facts out; no network here.
 */

/** What a repository has, as it advertises it. */
export interface Advertisement {
  /** Ref name to commit id. */
  refs: ReadonlyMap<string, string>
  capabilities: ReadonlySet<string>
}

export interface RefUpdate {
  ref: string
  /** 40 hex digits; null: the ref must not exist. */
  from: string | null
  to: string
}

/** What became of a push. The HTTP status is 200 in any case. */
export interface PushReport {
  /** "ok", or what is wrong with the pack. */
  unpack: string
  /** "ok", or why the ref was not updated. */
  ref: string
  /** What the server says to people (side band 2), and why it gave up (3). */
  messages: string
}

const ZERO_ID = '0'.repeat(40)
const MAX_MESSAGE_BYTES = 64 * 1024

/** The answer to GET …/info/refs?service=…: a comment, then a line for each ref, the first with the capabilities. */
export function parseAdvertisement(body: Buffer, service: string): Advertisement {
  const [comment, ...rest] = lines(body)
  if (comment !== `# service=${service}`) throw new GitProtocolError()
  const refs = new Map<string, string>()
  let capabilities = new Set<string>()
  for (const [i, line] of rest.entries()) {
    const [entry = '', offered] = line.split('\0')
    if (i === 0 && offered !== undefined) capabilities = new Set(offered.trim().split(' '))
    const [, id, ref] = /^([0-9a-f]{40}) (.+)$/.exec(entry) ?? []
    if (id === undefined || ref === undefined) throw new GitProtocolError()
    // An empty repository has one line with no ref, for the capabilities' sake.
    if (ref !== 'capabilities^{}') refs.set(ref, id)
  }
  return { refs, capabilities }
}

/** What comes before the pack. Only what the server offers is asked for. */
export function pushCommand(
  { ref, from, to }: RefUpdate,
  offered: ReadonlySet<string>,
  agent: string,
): Buffer {
  const wanted = ['report-status', 'side-band-64k'].filter((each) => offered.has(each))
  if (offered.has('object-format=sha1')) wanted.push('object-format=sha1')
  if ([...offered].some((each) => each.startsWith('agent='))) wanted.push(`agent=${agent}`)
  const command = packet(`${from ?? ZERO_ID} ${to} ${ref}\0 ${wanted.join(' ')}`)
  return Buffer.concat([command, FLUSH_PACKET])
}

/** Reads report-status, which comes on side band 1 where that was asked for. Throws `NotGit` without a whole report. */
export function parseReport(body: Buffer, ref: string, offered: ReadonlySet<string>): PushReport {
  const { report, messages } = offered.has('side-band-64k')
    ? splitBands(body)
    : { report: body, messages: '' }
  let unpack: string | undefined
  let result: string | undefined
  for (const line of lines(report)) {
    if (line.startsWith('unpack ')) unpack = line.slice('unpack '.length)
    else if (line === `ok ${ref}`) result = 'ok'
    else if (line.startsWith(`ng ${ref}`)) result = line.slice(`ng ${ref}`.length).trim() || 'declined'
  }
  if (unpack === undefined && messages === '') throw new GitProtocolError()
  return { unpack: unpack ?? 'no report', ref: result ?? 'no report', messages }
}

function splitBands(body: Buffer): { report: Buffer; messages: string } {
  const report: Buffer[] = []
  const told: Buffer[] = []
  let toldBytes = 0
  for (const each of packets(body)) {
    if (each === 'flush') continue
    const [band] = each
    const content = each.subarray(1)
    if (band === 1) report.push(content)
    else if (toldBytes < MAX_MESSAGE_BYTES) {
      told.push(content)
      toldBytes += content.length
    }
  }
  return { report: Buffer.concat(report), messages: Buffer.concat(told).toString('utf8') }
}

/*
 * Git's framing (gitprotocol-common(5)): four hex digits of length, their own included, then the bytes; 0000 is a flush.
 */

const FLUSH = 'flush'
type Packet = Buffer | typeof FLUSH

/** Longer payloads are not allowed in one packet. */
const MAX_PAYLOAD_BYTES = 65_516

/** Reading packets holds up everything else on the node; 20,000 are a tenth of a second. */
const MAX_PACKETS = 20_000

export const FLUSH_PACKET = Buffer.from('0000')

export function packet(payload: string): Buffer {
  const bytes = Buffer.from(payload)
  if (bytes.length > MAX_PAYLOAD_BYTES)
    throw new Error(`A packet of ${bytes.length} bytes is too long for git.`)
  return Buffer.concat([Buffer.from((bytes.length + 4).toString(16).padStart(4, '0')), bytes])
}

/** Throws `NotGit` where the bytes are not packets to the end, or too many. */
export function* packets(bytes: Buffer): Generator<Packet> {
  let count = 0
  for (let at = 0; at < bytes.length; ) {
    if (++count > MAX_PACKETS) throw new GitProtocolError(`the answer has more than ${MAX_PACKETS} lines`)
    const digits = bytes.toString('latin1', at, at + 4)
    if (!/^[0-9a-f]{4}$/i.test(digits)) throw new GitProtocolError()
    const length = Number.parseInt(digits, 16)
    if (length === 0) {
      yield FLUSH
      at += 4
    } else {
      if (length < 4 || at + length > bytes.length) throw new GitProtocolError()
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
export class GitProtocolError extends Error {
  override readonly name = 'GitProtocolError'

  constructor(message = 'the answer is not in git’s protocol, or is cut off') {
    super(message)
  }
}
