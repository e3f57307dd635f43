import { open } from 'node:fs/promises'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { join, resolve } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { BoundedSlots } from '../../runtime/bounded-slots.ts'
import { enforceMinimumReadRate, type MinimumReadRate } from '../../runtime/minimum-read-rate.ts'
import { ForgeError } from '../forge-error.ts'
import { BareRepository } from './bare-repository.ts'
import { type RepositoryRecord, repositoryFolder } from './forge-layout.ts'
import { findGitBackend, runGitBackend } from './git-backend.ts'
import { discardRest, GitRequestError, readGitRequest } from './git-request-body.ts'
import { hasCode } from './storage-errors.ts'

export interface GitHttpOptions {
  /** The local forge's. */
  folder: string
  /** Where this handler answers, for the clone line on a repository's page: `http://127.0.0.1:3000/git`. */
  cloneUrlBase: string
  /** Whether a request may read what an owner has. `hidden` is answered as if there were nothing. */
  authorizeRead?(
    request: IncomingMessage,
    response: ServerResponse,
    owner: string,
  ): Promise<'allowed' | 'hidden' | 'answered'>
  /**
   * Who asks, so that one subject cannot use up what all need. Without it callers cannot be told apart, and each
   * organization has a share instead.
   */
  subjectOf?(request: IncomingMessage): string
  /** Is told once when there is no git command, and of what git complains about. */
  log(message: string): void
  limits?: Partial<GitHttpLimits>
  gitCommand?: string
}

/** Documented for those who clone in PROTOCOL.md, for those who run it in docs/operations.md. */
export interface GitHttpLimits {
  /** How many git processes run at once, and how many of them for one subject or organization. */
  processes: number
  processesPerSubject: number
  processesPerOrganization: number
  /** A request waits so long for its turn. */
  maxWaitMs: number
  /** Of a request, as sent and as decompressed, and how long it may take to arrive. */
  maxRequestBytes: number
  requestTimeoutMs: number
  /** How slowly an answer may be read. */
  minReadRate: MinimumReadRate
  /** From git's start to the last byte. */
  responseTimeoutMs: number
}

const DEFAULT_LIMITS: GitHttpLimits = {
  processes: 8,
  processesPerSubject: 2,
  processesPerOrganization: 4,
  maxWaitMs: 50_000, // usual proxies give up after 60 s, without a sentence
  maxRequestBytes: 1024 * 1024,
  requestTimeoutMs: 30_000,
  minReadRate: { bytesPerSecond: 64 * 1024, toleranceSeconds: 30 },
  responseTimeoutMs: 15 * 60_000,
}
/** Requests that are held in memory, whether they arrive, wait or are answered; more wait unread. */
const MAX_REQUESTS = 64
const MAX_REQUESTS_PER_KEY = 4
const MAX_WAITING = 256
const MAX_WAITING_PER_KEY = 32

type Handler = (request: IncomingMessage, response: ServerResponse) => void

interface Exchange {
  request: IncomingMessage
  response: ServerResponse
  repository: BareRepository
  record: RepositoryRecord
}

const REPOSITORY_PATH = /^\/([^/]+)\/([^/]+?)(?:\.git)?(\/.*)?$/
/** What a "dumb" client reads, as files: gitprotocol-http(5). Nothing else of a repository is shown. */
const DUMB_HTTP_FILE =
  /^\/(HEAD|info\/refs|objects\/info\/packs|objects\/pack\/pack-[0-9a-f]{40}\.(?:pack|idx)|objects\/[0-9a-f]{2}\/[0-9a-f]{38})$/
const READ_ONLY =
  'This is read only: repositories are written by deployments. Push to a remote of your own instead.\n'

/**
 * Serves a local forge's repositories for `git clone` and `git fetch`, read only, below where it is mounted
 * (`app.use('/git', gitHttpHandler(…))`). With a git command: smart HTTP, all protocol versions. Without: the
 * files that "dumb" HTTP needs. Names compare without case; who may read is the caller's to say: without `mayRead`, everybody.
 */
export function gitHttpHandler(options: GitHttpOptions): Handler {
  const limits = { ...DEFAULT_LIMITS, ...options.limits }
  const perKey = options.subjectOf ? limits.processesPerSubject : limits.processesPerOrganization
  const processes = new BoundedSlots(limits.processes, MAX_REQUESTS, {
    maxSlots: perKey,
    maxWaiting: MAX_REQUESTS,
  })
  const requests = new BoundedSlots(MAX_REQUESTS, MAX_WAITING, {
    maxSlots: MAX_REQUESTS_PER_KEY,
    maxWaiting: MAX_WAITING_PER_KEY,
  })
  const folder = resolve(options.folder)
  const backend = findGitBackend(options.gitCommand ?? 'git').then((found) => {
    if (found === null)
      options.log('No git command here: repositories are served by "dumb" HTTP, without --depth.')
    return found
  })

  async function serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const [path = '', query] = (request.url ?? '/').split('?', 2)
    const [, owner = '', name = '', rest = '/'] = REPOSITORY_PATH.exec(path) ?? []
    const right = (await options.authorizeRead?.(request, response, owner)) ?? 'allowed'
    if (right === 'answered') return
    const repository = right === 'allowed' ? findRepository(folder, owner, name) : null
    const record = (await repository?.readRecord()) ?? null
    if (repository === null || record === null)
      return sendText(response, 404, 'There is no such repository here.\n')

    const exchange: Exchange = { request, response, repository, record }
    const service = new URLSearchParams(query).get('service')
    if (rest === '/git-receive-pack' || service === 'git-receive-pack')
      return sendText(response, 403, READ_ONLY)
    const isRead = request.method === 'GET' || request.method === 'HEAD'
    const isSmart =
      (isRead && rest === '/info/refs' && service === 'git-upload-pack') ||
      (request.method === 'POST' && rest === '/git-upload-pack')
    const program = isSmart ? await backend : null
    if (program !== null) return serveSmart(exchange, program, rest)
    if (!isRead) return sendText(response, 405, 'Only reading is possible here.\n')
    if (rest === '/') return servePage(exchange)
    if (response.closed) return
    if (DUMB_HTTP_FILE.test(rest)) {
      watchReader(response, path)
      return serveFile(exchange, rest)
    }
    return sendText(response, 404, 'There is no such page here.\n')
  }

  /** In this order, so that a slow sender holds no git process, and a request in line holds nothing but its bytes. */
  async function serveSmart(exchange: Exchange, program: string, rest: string): Promise<void> {
    const { request, response, record } = exchange
    const key = options.subjectOf?.(request) ?? record.owner.toLowerCase()
    if (response.closed) return
    const closed = new AbortController()
    response.once('close', () => closed.abort())
    const late = new AbortController()
    const timer = setTimeout(() => late.abort(new TooBusyError()), limits.maxWaitMs)
    const signal = AbortSignal.any([closed.signal, late.signal])
    try {
      await withSlot(requests, key, signal, async () => {
        const body = request.method === 'POST' ? await readRequest(request, signal) : Buffer.alloc(0)
        await withSlot(processes, key, signal, async () => {
          clearTimeout(timer)
          await runGit(exchange, program, rest, body, closed.signal)
        })
      })
    } catch (error) {
      if (closed.signal.aborted) return
      sendError(response, error)
      discardRest(request)
    } finally {
      clearTimeout(timer)
    }
  }

  function readRequest(request: IncomingMessage, signal: AbortSignal): Promise<Buffer> {
    return readGitRequest(
      request,
      { maxBytes: limits.maxRequestBytes, timeoutMs: limits.requestTimeoutMs },
      signal,
    )
  }

  async function runGit(
    { request, response, repository }: Exchange,
    program: string,
    rest: string,
    body: Buffer,
    signal: AbortSignal,
  ): Promise<void> {
    const path = repository.path.slice(folder.length) + rest
    watchReader(response, path)
    await runGitBackend({ program, folder, path, request, body, response, signal, log: options.log })
  }

  /** Closes the connection of a client that reads too slowly, or takes too long in all. */
  function watchReader(response: ServerResponse, path: string): void {
    const close = (why: string) => {
      options.log(`The answer about ${path} was cut off: ${why}`)
      response.destroy()
    }
    enforceMinimumReadRate(response, limits.minReadRate, () => close('it was read too slowly'))
    const timer = setTimeout(() => close('it took too long'), limits.responseTimeoutMs)
    response.once('close', () => clearTimeout(timer))
  }

  async function servePage({ response, repository, record }: Exchange): Promise<void> {
    const head = await repository.readHead()
    const commit = head === null ? null : await repository.readRef(head)
    const where =
      commit === null
        ? 'Nothing has been pushed yet.'
        : `${head?.slice('refs/heads/'.length)} is at ${commit}`
    const name = `${record.owner}/${record.name}`
    const about = record.description ? `${record.description}\n\n` : ''
    sendText(response, 200, `${name}\n\n${about}git clone ${options.cloneUrlBase}/${name}.git\n\n${where}\n`)
  }

  return (request, response) => {
    serve(request, response).catch((error: unknown) => {
      if (response.destroyed) return
      options.log(`Serving ${request.url} failed: ${error instanceof Error ? error.message : error}`)
      if (response.headersSent) response.destroy()
      else sendText(response, 500, 'Something went wrong here.\n')
    })
  }
}

/** There is no place in line, or waiting took too long. */
class TooBusyError extends Error {
  override readonly name = 'TooBusyError'
}

async function withSlot(
  slots: BoundedSlots,
  key: string,
  signal: AbortSignal,
  action: () => Promise<void>,
): Promise<void> {
  const leave = await slots.acquire(signal, key)
  if (leave === null) throw new TooBusyError()
  try {
    await action()
  } finally {
    leave()
  }
}

function sendError(response: ServerResponse, error: unknown): void {
  if (error instanceof TooBusyError) {
    response.setHeader('Retry-After', '5')
    sendText(response, 503, 'Too many clones at once. Try again in a few seconds.\n')
  } else if (error instanceof GitRequestError) {
    if (error.status === 415) response.setHeader('Accept-Encoding', 'gzip')
    sendText(response, error.status, `${error.message}\n`)
  } else {
    throw error
  }
}

/** Null for names that no repository can have. */
function findRepository(folder: string, owner: string, name: string): BareRepository | null {
  try {
    return new BareRepository(repositoryFolder(folder, owner, name))
  } catch (error) {
    if (error instanceof ForgeError) return null
    throw error
  }
}

async function serveFile({ request, response, repository }: Exchange, path: string): Promise<void> {
  const file = await open(join(repository.path, path)).catch((error: unknown) => {
    if (hasCode(error, 'ENOENT')) return null
    throw error
  })
  if (file === null) return sendText(response, 404, 'There is no such file here.\n')
  // The stream closes the file, also when the reader goes away.
  const bytes = file.createReadStream()
  response.writeHead(200, {
    'Content-Type': 'application/octet-stream',
    'Content-Length': (await file.stat()).size,
    'Cache-Control': path.startsWith('/objects/pack/') ? 'private, max-age=31536000, immutable' : 'no-cache',
  })
  if (request.method === 'HEAD') {
    bytes.destroy()
    response.end()
  } else {
    await pipeline(bytes, response)
  }
}

function sendText(response: ServerResponse, status: number, text: string): void {
  response.writeHead(status, {
    'Content-Type': 'text/plain; charset=utf-8',
    'X-Content-Type-Options': 'nosniff',
    'Cache-Control': 'no-cache',
  })
  response.end(text)
}
