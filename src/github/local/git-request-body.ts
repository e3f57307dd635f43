import { on } from 'node:events'
import type { IncomingMessage } from 'node:http'
import { promisify } from 'node:util'
import { gunzip } from 'node:zlib'

const DISCARD_TIMEOUT_MS = 2_000

/** The request is refused before git reads it. */
export class GitRequestError extends Error {
  override readonly name = 'GitRequestError'
  readonly status: 400 | 408 | 413 | 415

  constructor(status: GitRequestError['status'], message: string) {
    super(message)
    this.status = status
  }
}

/**
 * Reads the whole request, at most `maxBytes` both as sent and decompressed: git itself has no limit. Rejects
 * with a `GitRequestError`, or with the signal's reason if the client has disconnected.
 */
export async function readGitRequest(
  request: IncomingMessage,
  limits: { maxBytes: number; timeoutMs: number },
  signal: AbortSignal,
): Promise<Buffer> {
  const { maxBytes, timeoutMs } = limits
  const encoding = (request.headers['content-encoding'] ?? 'identity').trim().toLowerCase()
  if (!['identity', 'gzip', 'x-gzip'].includes(encoding)) {
    throw new GitRequestError(415, 'Send the request uncompressed or compressed with gzip.')
  }
  const tooLarge = () =>
    new GitRequestError(
      413,
      `The request is larger than ${maxBytes} bytes. Fetch fewer branches at once, or clone again.`,
    )
  if (Number(request.headers['content-length'] ?? 0) > maxBytes) throw tooLarge()
  const sent = await readUpTo(request, maxBytes, timeoutMs, signal)
  if (sent === null) throw tooLarge()
  if (encoding === 'identity') return sent
  try {
    return await promisify(gunzip)(sent, { maxOutputLength: maxBytes })
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ERR_BUFFER_TOO_LARGE') throw tooLarge()
    throw new GitRequestError(400, 'The request cannot be decompressed: it is not valid gzip.')
  }
}

/** Null if the request is larger. */
async function readUpTo(
  request: IncomingMessage,
  maxBytes: number,
  timeoutMs: number,
  signal: AbortSignal,
): Promise<Buffer | null> {
  const slow = new AbortController()
  const timer = setTimeout(() => slow.abort(), timeoutMs)
  const parts: Buffer[] = []
  let length = 0
  try {
    const aborted = AbortSignal.any([signal, slow.signal])
    for await (const [part] of on(request, 'data', { close: ['end', 'close'], signal: aborted })) {
      length += part.length
      if (length > maxBytes) return null
      parts.push(part)
    }
  } catch (error) {
    signal.throwIfAborted()
    if (slow.signal.aborted) {
      throw new GitRequestError(408, `The request did not arrive within ${timeoutMs / 1000} s.`)
    }
    throw error
  } finally {
    clearTimeout(timer)
  }
  return Buffer.concat(parts)
}

/**
 * Lets a client that is still sending read the response, which it would lose if the connection closed at
 * once. Discards its data for a short time.
 */
export function discardRest(request: IncomingMessage): void {
  if (request.complete) return
  request.resume()
  const timer = setTimeout(() => request.destroy(), DISCARD_TIMEOUT_MS)
  request.once('close', () => clearTimeout(timer))
}
