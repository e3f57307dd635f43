/*
 * The bytes of a git push over smart HTTP: gitprotocol-http(5), gitprotocol-pack(5), gitprotocol-common(5).
 * Only parsing and formatting; git-remote.ts does the I/O.
 */

/** The refs and capabilities that a repository advertises. */
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

/** The result of a push. The HTTP status is 200 in any case. */
export interface PushReport {
  /** "ok", or what is wrong with the pack. */
  unpack: string
  /** "ok", or why the ref was not updated. */
  ref: string
  /** The server's messages to people (side band 2) and fatal errors (side band 3). */
  messages: string
}

/** The response does not follow git's protocol, or is truncated. */
export class GitProtocolError extends Error {
  constructor(message = "the response does not follow git's protocol, or is truncated") {
    super(message)
  }
}

const ZERO_ID = '0'.repeat(40)
const MAX_MESSAGE_BYTES = 64 * 1024
/** gitprotocol-common(5): the longest payload of one packet. */
const MAX_PAYLOAD_BYTES = 65_516
/** Parsing packets blocks the event loop: 20,000 take a tenth of a second. */
const MAX_PACKETS = 20_000
const FLUSH_PACKET = Buffer.from('0000')

/**
 * Parses the response to GET …/info/refs?service=…: a comment, then a line per ref, the
 * first with the capabilities.
 */
export function parseAdvertisement(body: Buffer, service: string): Advertisement {
  const [comment, ...refLines] = parseLines(body)
  if (comment !== `# service=${service}`) throw new GitProtocolError()
  const refs = new Map<string, string>()
  let capabilities = new Set<string>()
  for (const [i, line] of refLines.entries()) {
    const [entry = '', offered] = line.split('\0')
    if (i === 0 && offered !== undefined) capabilities = new Set(offered.trim().split(' '))
    const [, id, ref] = /^([0-9a-f]{40}) (.+)$/.exec(entry) ?? []
    if (id === undefined || ref === undefined) throw new GitProtocolError()
    // An empty repository has one line without a ref, only for the capabilities.
    if (ref !== 'capabilities^{}') refs.set(ref, id)
  }
  return { refs, capabilities }
}

/** The bytes before the pack. Requests only capabilities that the server offers. */
export function pushCommand(
  { ref, from, to }: RefUpdate,
  offered: ReadonlySet<string>,
  agent: string,
): Buffer {
  const requested = ['report-status', 'side-band-64k', 'object-format=sha1'].filter((each) =>
    offered.has(each),
  )
  if ([...offered].some((each) => each.startsWith('agent='))) requested.push(`agent=${agent}`)
  const command = packet(`${from ?? ZERO_ID} ${to} ${ref}\0 ${requested.join(' ')}`)
  return Buffer.concat([command, FLUSH_PACKET])
}

/**
 * Parses report-status, which arrives on side band 1 if that was requested. Throws if
 * the report is incomplete.
 */
export function parseReport(body: Buffer, ref: string, offered: ReadonlySet<string>): PushReport {
  const { report, messages } = offered.has('side-band-64k')
    ? splitBands(body)
    : { report: body, messages: '' }
  let unpack: string | undefined
  let result: string | undefined
  for (const line of parseLines(report)) {
    if (line.startsWith('unpack ')) unpack = line.slice('unpack '.length)
    else if (line === `ok ${ref}`) result = 'ok'
    else if (line.startsWith(`ng ${ref}`)) result = line.slice(`ng ${ref}`.length).trim() || 'declined'
  }
  if (unpack === undefined && messages === '') throw new GitProtocolError()
  return { unpack: unpack ?? 'no report', ref: result ?? 'no report', messages }
}

function splitBands(body: Buffer): { report: Buffer; messages: string } {
  const report: Buffer[] = []
  const messages: Buffer[] = []
  let messageBytes = 0
  for (const payload of parsePackets(body)) {
    if (payload === null) continue
    const [band] = payload
    const content = payload.subarray(1)
    if (band === 1) report.push(content)
    else if (messageBytes < MAX_MESSAGE_BYTES) {
      messages.push(content)
      messageBytes += content.length
    }
  }
  return { report: Buffer.concat(report), messages: Buffer.concat(messages).toString('utf8') }
}

/** A packet: four hex digits of length, including these four bytes, then the payload. */
export function packet(payload: string): Buffer {
  const bytes = Buffer.from(payload)
  if (bytes.length > MAX_PAYLOAD_BYTES) {
    throw new Error(`A packet of ${bytes.length} bytes is too long for git.`)
  }
  return Buffer.concat([Buffer.from((bytes.length + 4).toString(16).padStart(4, '0')), bytes])
}

/** Text lines without their newlines, and without flush packets. */
function parseLines(bytes: Buffer): string[] {
  return [...parsePackets(bytes)].flatMap((payload) =>
    payload === null ? [] : [payload.toString('utf8').replace(/\n$/, '')],
  )
}

/** The payload of each packet; null for a flush packet (0000). */
function* parsePackets(bytes: Buffer): Generator<Buffer | null> {
  let count = 0
  for (let at = 0; at < bytes.length; ) {
    if (++count > MAX_PACKETS) throw new GitProtocolError(`the response has more than ${MAX_PACKETS} lines`)
    const digits = bytes.toString('latin1', at, at + 4)
    if (!/^[0-9a-f]{4}$/i.test(digits)) throw new GitProtocolError()
    const length = Number.parseInt(digits, 16)
    if (length === 0) {
      yield null
      at += 4
    } else {
      if (length < 4 || at + length > bytes.length) throw new GitProtocolError()
      yield bytes.subarray(at + 4, at + length)
      at += length
    }
  }
}
