import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Readable, Transform } from 'node:stream'
import { TextDecoder } from 'node:util'
import {
  constants,
  createBrotliDecompress,
  createGunzip,
  createInflate,
  createZstdDecompress,
} from 'node:zlib'
import type { RequestHandler } from 'express'
import { GraphQLError } from 'graphql'
import { LOCAL_SUBJECT, type Subject } from '../auth/rights.ts'
import { BadUserInputError, RateLimitedError, TooLargeError } from '../errors.ts'
import { JsonLimits } from '../graphql/json-limits.ts'
import { requestScheduler } from '../runtime/fair-scheduler.ts'
import { ByteBudget } from './byte-budget.ts'

const KIB = 1024
const MIB = 1024 * KIB
const MAX_BODY_BYTES = 32 * MIB
/** For subjects that cannot deploy: they send only queries. */
const MAX_QUERY_BODY_BYTES = 1 * MIB
/** Bodies up to this size have a separate budget, so that large bodies do not block queries. */
const SMALL_BODY_BYTES = 64 * KIB
/** The growth step of a body of unknown length. */
const BUFFER_GROWTH_BYTES = 256 * KIB
const SECOND_MS = 1_000
/** For the rest of a refused body: resetting the connection would discard the response. */
const LINGER_MS = 2_000
/** RFC 9659: the largest window that receivers have to support. */
const ZSTD_WINDOW_LOG = 23

export interface JsonBodyOptions {
  subjectOf(request: IncomingMessage): Subject
  /** Bytes held at once, in total and for one subject; small bodies can hold an eighth more, separately. */
  maxBytes?: number
  maxSubjectBytes?: number
  /** After the grace period, a body must arrive at this average rate. */
  graceSeconds?: number
  minBytesPerSecond?: number
}

/**
 * Reads JSON into `request.body`. The bytes of all bodies together are limited; they count until the response
 * is written, because the parsed values live that long. Refusals are GraphQL responses.
 */
export function jsonBody(options: JsonBodyOptions): RequestHandler {
  const { subjectOf, maxBytes = 256 * MIB, maxSubjectBytes = 64 * MIB } = options
  const small = new ByteBudget(maxBytes / 8, maxSubjectBytes / 8)
  const large = new ByteBudget(maxBytes, maxSubjectBytes)

  return async (request, response, next) => {
    // Apollo requires the property.
    request.body = undefined
    if (request.method !== 'POST') return next()
    const subject = subjectOf(request)
    const reservation = new Reservation(subject.id, small, large)
    try {
      const limit = subject.rights.deploysTo.length > 0 ? MAX_BODY_BYTES : MAX_QUERY_BODY_BYTES
      const text = await readBody(request, limit, reservation, options)
      await requestScheduler.yieldIfBusy(subject.id)
      request.body = parseJson(text)
    } catch (error) {
      reservation.release()
      if (error instanceof ClientGoneError) return
      return rejectRequest(request, response, rejectionFor(error))
    }
    onResponseFinished(response, () => reservation.release())
    next()
  }
}

/** The bytes of one body, reserved in the budget for small bodies or, once it outgrows that, in the other. */
class Reservation {
  private budget: ByteBudget
  private bytes = 0

  constructor(
    readonly subjectId: string,
    private readonly smallBodyBudget: ByteBudget,
    private readonly largeBodyBudget: ByteBudget,
  ) {
    this.budget = smallBodyBudget
  }

  /** @throws RateLimitedError */
  growTo(bytes: number): void {
    if (bytes <= this.bytes) return
    // The local subject stands for everyone on this machine.
    const isExempt = this.subjectId === LOCAL_SUBJECT.id
    const budget = bytes > SMALL_BODY_BYTES ? this.largeBodyBudget : this.smallBodyBudget
    if (budget === this.budget) {
      budget.reserve(this.subjectId, bytes - this.bytes, isExempt)
    } else {
      budget.reserve(this.subjectId, bytes, isExempt)
      this.release()
    }
    this.budget = budget
    this.bytes = bytes
  }

  release(): void {
    this.budget.release(this.subjectId, this.bytes)
    this.bytes = 0
  }
}

async function readBody(
  request: IncomingMessage,
  limit: number,
  reservation: Reservation,
  options: JsonBodyOptions,
): Promise<string> {
  // The client may have disconnected during authentication; no later event would report it.
  if (request.destroyed) throw new ClientGoneError()
  const { headers } = request
  const decoder = decoderFor(headers['content-type'])
  const inflater = inflaterFor(headers['content-encoding'])
  const declared = headers['content-length']
  const length = inflater || decoder || declared === undefined ? undefined : Number(declared)
  if (length !== undefined && length > limit) throw bodyTooLarge(limit)
  reservation.growTo(length ?? 1)

  const storage = new BodyBuffer(length, limit, reservation)
  const limits = new JsonLimits()
  try {
    await receiveChunks(request, inflater, options, (chunk) => {
      const bytes = decoder ? Buffer.from(decoder.decode(chunk, { stream: true })) : chunk
      storage.append(bytes)
      limits.check(bytes)
    })
    // Decoding and parsing a large body takes long: yield in between.
    await requestScheduler.yieldIfBusy(reservation.subjectId)
    return storage.text()
  } finally {
    storage.free()
  }
}

/** The bytes of one body, outside of V8's heap. */
class BodyBuffer {
  private readonly buffer: ArrayBuffer
  private readonly bytes: Uint8Array
  private usedBytes = 0

  constructor(
    length: number | undefined,
    private readonly limit: number,
    private readonly reservation: Reservation,
  ) {
    const isSmall = length !== undefined && length <= SMALL_BODY_BYTES
    this.buffer = isSmall
      ? new ArrayBuffer(length)
      : // Shrinking a resizable buffer returns its memory; others return it late, if at all.
        new ArrayBuffer(length ?? 0, { maxByteLength: length ?? limit })
    this.bytes = new Uint8Array(this.buffer)
  }

  /** @throws TooLargeError, RateLimitedError */
  append(chunk: Uint8Array): void {
    const needed = this.usedBytes + chunk.length
    if (needed > this.limit) throw bodyTooLarge(this.limit)
    this.reservation.growTo(needed)
    if (needed > this.buffer.byteLength) {
      this.buffer.resize(Math.min(this.buffer.maxByteLength, needed + BUFFER_GROWTH_BYTES))
    }
    this.bytes.set(chunk, this.usedBytes)
    this.usedBytes = needed
  }

  text(): string {
    try {
      return new TextDecoder('utf-8', { fatal: true }).decode(this.bytes.subarray(0, this.usedBytes))
    } catch {
      throw new BadUserInputError([{ path: 'body', reason: 'is not UTF-8' }])
    }
  }

  free(): void {
    if (this.buffer.resizable) this.buffer.resize(0)
  }
}

/** Passes decompressed chunks to `onChunk`. Rejects if it throws, or the body is too slow or incomplete. */
function receiveChunks(
  request: IncomingMessage,
  inflater: Transform | undefined,
  { graceSeconds = 10, minBytesPerSecond = 64 * KIB }: JsonBodyOptions,
  onChunk: (chunk: Buffer) => void,
): Promise<void> {
  const { socket } = request
  const source: Readable = inflater ? request.pipe(inflater) : request
  return new Promise<void>((resolve, reject) => {
    const firstByte = socket.bytesRead
    let seconds = 0
    // Counts ticks rather than time: a busy node must not blame the client.
    const everySecond = setInterval(() => {
      seconds++
      const received = socket.bytesRead - firstByte
      if (seconds > graceSeconds && received < (seconds - graceSeconds) * minBytesPerSecond) {
        end(() => reject(new BodyRejectedError(408, bodyTooSlow(minBytesPerSecond))))
      }
    }, SECOND_MS)
    // Reads everything that has arrived: a client may send single bytes.
    const onReadable = () => {
      try {
        for (let chunk: Buffer | null = source.read(); chunk; chunk = source.read()) onChunk(chunk)
      } catch (error) {
        end(() => reject(error))
      }
    }
    const onEnd = () => end(resolve)
    const onError = (error: Error) => end(() => reject(decompressionFailed(error)))
    const onClose = () => {
      // A complete body may still have to be decompressed.
      if (!request.complete) end(() => reject(new ClientGoneError()))
    }
    const end = (settle: () => void) => {
      clearInterval(everySecond)
      source.off('readable', onReadable).off('end', onEnd)
      request.off('close', onClose)
      if (inflater) request.unpipe(inflater)
      inflater?.destroy()
      // Discards the rest of the body; the next request follows it.
      request.resume()
      settle()
    }
    source.on('readable', onReadable).once('end', onEnd)
    request.once('close', onClose)
    // Both may emit further errors, which must have a listener.
    inflater?.on('error', onError)
    request.on('error', onClose)
  })
}

/** RFC 8259 requires UTF-8; other encodings of Unicode are converted. */
function decoderFor(contentType = ''): TextDecoder | undefined {
  const [type = '', ...parameters] = contentType.split(';').map((part) => part.trim().toLowerCase())
  if (type !== 'application/json') throw new BodyRejectedError(400, notJson())
  const charset = parameters.find((each) => each.startsWith('charset='))?.slice('charset='.length)
  switch (charset?.replace(/^"(.*)"$/, '$1') ?? 'utf-8') {
    case 'utf-8':
    case 'utf8':
      return undefined
    case 'utf-16':
    case 'utf-16le':
      return new TextDecoder('utf-16le')
    case 'utf-16be':
      return new TextDecoder('utf-16be')
    default:
      throw new BadUserInputError([{ path: 'body', reason: 'is in an unknown character set; send UTF-8' }])
  }
}

function inflaterFor(encoding = 'identity'): Transform | undefined {
  switch (encoding.trim().toLowerCase()) {
    case 'identity':
      return undefined
    case 'gzip':
    case 'x-gzip':
      return createGunzip()
    case 'deflate':
      return createInflate()
    case 'br':
      return createBrotliDecompress()
    case 'zstd':
      return createZstdDecompress({ params: { [constants.ZSTD_d_windowLogMax]: ZSTD_WINDOW_LOG } })
    default:
      throw new BadUserInputError([
        { path: 'body', reason: 'has an unknown compression; send gzip, deflate, br, zstd, or none' },
      ])
  }
}

function parseJson(text: string): unknown {
  // Apollo reports what is missing.
  if (text === '') return {}
  let body: unknown
  try {
    body = JSON.parse(text)
  } catch {
    // Reported below.
  }
  if (typeof body === 'object' && body !== null) return body
  throw new BadUserInputError([{ path: 'body', reason: 'is not JSON; send {"query": …, "variables": …}' }])
}

/** The client has disconnected. */
class ClientGoneError extends Error {
  override readonly name = 'ClientGoneError'
}

/** A refusal with its HTTP status. */
class BodyRejectedError extends Error {
  override readonly name = 'BodyRejectedError'

  constructor(
    readonly status: number,
    readonly error: GraphQLError,
  ) {
    super(error.message)
  }
}

function rejectionFor(error: unknown): BodyRejectedError {
  if (error instanceof BodyRejectedError) return error
  if (error instanceof TooLargeError) return new BodyRejectedError(413, error)
  if (error instanceof RateLimitedError) return new BodyRejectedError(503, error)
  if (error instanceof BadUserInputError) return new BodyRejectedError(400, error)
  throw error
}

function bodyTooLarge(limit: number): TooLargeError {
  return new TooLargeError(
    limit === MAX_BODY_BYTES
      ? `The request is larger than ${limit / MIB} MiB. Send fewer or smaller files, or turn them into a template.`
      : `The request is larger than ${limit / MIB} MiB. Larger requests require the role "deployer".`,
  )
}

function bodyTooSlow(minBytesPerSecond: number): GraphQLError {
  return badRequest(
    `The request arrived at less than ${minBytesPerSecond / KIB} KiB/s. Send it again over a faster connection.`,
  )
}

function notJson(): GraphQLError {
  return badRequest('The request is not JSON. Send it with "Content-Type: application/json".')
}

function decompressionFailed({ message }: Error): BadUserInputError {
  return new BadUserInputError([{ path: 'body', reason: `cannot be decompressed: ${message}` }])
}

function badRequest(message: string): GraphQLError {
  return new GraphQLError(message, { extensions: { code: 'BAD_REQUEST' } })
}

/** Responds before the body is read, then keeps reading briefly: closing at once could lose the response. */
export function rejectRequest(
  request: IncomingMessage,
  response: ServerResponse,
  { status, error }: { status: number; error: GraphQLError },
): void {
  const text = JSON.stringify({ errors: [error.toJSON()] })
  response.statusCode = status
  response.setHeader('Content-Type', 'application/json; charset=utf-8')
  response.setHeader('Content-Length', Buffer.byteLength(text))
  if (error instanceof RateLimitedError) response.setHeader('Retry-After', String(error.retryAfterSeconds))
  if (request.readableEnded) {
    response.end(text)
    return
  }
  response.setHeader('Connection', 'close')
  response.write(text)
  const end = () => {
    clearTimeout(timer)
    response.end()
  }
  const timer = setTimeout(end, LINGER_MS)
  request.resume()
  request.once('end', end).once('close', end)
}

/** Calls back when the response is written, even after a disconnect: the operation continues until then. */
function onResponseFinished(response: ServerResponse, done: () => void): void {
  const onClose = () => {
    if (response.writableEnded) return done()
    const { end } = response
    response.end = (...args: unknown[]) => {
      done()
      return Reflect.apply(end, response, args)
    }
  }
  if (response.closed) onClose()
  else response.once('close', onClose)
}
