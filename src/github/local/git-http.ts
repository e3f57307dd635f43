import type { IncomingMessage, ServerResponse } from 'node:http'
import { resolve } from 'node:path'
import { BoundedSlots } from '../../runtime/bounded-slots.ts'
import { enforceMinimumReadRate, type MinimumReadRate } from '../../runtime/minimum-read-rate.ts'
import { ForgeError } from '../forge-error.ts'
import { BareRepository } from './bare-repository.ts'
import { type RepositoryRecord, repositoryFolder } from './forge-layout.ts'
import { findGitBackend, runGitBackend } from './git-backend.ts'
import { discardRest, GitRequestError, readGitRequest } from './git-request-body.ts'

export interface GitHttpOptions {
  /** The local forge's folder. */
  folder: string
  /**
   * The base URL of this handler, for the clone command on a repository's page: `http://127.0.0.1:3000/git`.
   */
  cloneUrlBase: string
  /**
   * Whether a request may read an owner's repositories; without it, every request may. `hidden`: respond as
   * if the repository did not exist; `answered`: this function has sent the response.
   */
  authorizeRead?(
    request: IncomingMessage,
    response: ServerResponse,
    owner: string,
  ): Promise<'allowed' | 'hidden' | 'answered'>
  /**
   * The subject of a request. Subjects share the git processes fairly; without this
   * function, organizations do.
   */
  subjectOf?(request: IncomingMessage): string
  /** Receives git's error output, and why a response was cut off. */
  log(message: string): void
  limits?: Partial<GitHttpLimits>
}

/** Documented for clients in PROTOCOL.md, and for operators in docs/operations.md. */
interface GitHttpLimits {
  /** Concurrent git processes: in total, and per subject or organization. */
  processes: number
  processesPerSubject: number
  processesPerOrganization: number
  /** How long a request waits for a slot. */
  maxWaitMs: number
  /** The size of a request, both as sent and decompressed, and how long it may take to arrive. */
  maxRequestBytes: number
  requestTimeoutMs: number
  /** The minimum rate at which a client must read the response. */
  minReadRate: MinimumReadRate
  /** From git's start to the last byte. */
  responseTimeoutMs: number
}

const DEFAULT_LIMITS: GitHttpLimits = {
  processes: 8,
  processesPerSubject: 2,
  processesPerOrganization: 4,
  maxWaitMs: 50_000, // most proxies give up after 60 s, without an explanation
  maxRequestBytes: 1024 * 1024,
  requestTimeoutMs: 30_000,
  minReadRate: { bytesPerSecond: 64 * 1024, toleranceSeconds: 30 },
  responseTimeoutMs: 15 * 60_000,
}
/** Requests in memory: arriving, waiting or being served. Further requests wait unread. */
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
const READ_ONLY =
  'Clone URLs are read-only: deployments write these repositories. Push to a remote of your own instead.\n'
const SMART_HTTP_ONLY = 'Only the smart HTTP protocol is served here. Clone with git 1.6.6 or newer.\n'

/**
 * Serves a local forge's repositories for `git clone` and `git fetch`, read-only, with all versions of git's
 * smart HTTP protocol. Paths are relative to the mount point (`app.use('/git', gitHttpHandler(…))`); names
 * are case-insensitive.
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
  let program: string | undefined

  async function serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const [path = '', query] = (request.url ?? '/').split('?', 2)
    const [, owner = '', name = '', rest = '/'] = REPOSITORY_PATH.exec(path) ?? []
    const access = (await options.authorizeRead?.(request, response, owner)) ?? 'allowed'
    if (access === 'answered') return
    const repository = access === 'allowed' ? findRepository(folder, owner, name) : null
    const record = (await repository?.readRecord()) ?? null
    if (repository === null || record === null) return sendText(response, 404, 'Repository not found.\n')

    const exchange: Exchange = { request, response, repository, record }
    const service = new URLSearchParams(query).get('service')
    if (rest === '/git-receive-pack' || service === 'git-receive-pack')
      return sendText(response, 403, READ_ONLY)
    if (request.method === 'POST' && rest === '/git-upload-pack') return serveGit(exchange, rest)
    if (request.method !== 'GET' && request.method !== 'HEAD')
      return sendText(response, 405, 'Clone URLs are read-only.\n')
    if (rest === '/info/refs') {
      if (service === 'git-upload-pack') return serveGit(exchange, rest)
      return sendText(response, 403, SMART_HTTP_ONLY)
    }
    if (rest === '/') return servePage(exchange)
    return sendText(response, 404, 'Page not found.\n')
  }

  /**
   * In this order, so that a slow sender occupies no git process, and a waiting request
   * only its bytes in memory.
   */
  async function serveGit(exchange: Exchange, rest: string): Promise<void> {
    const { request, response, record } = exchange
    const key = options.subjectOf?.(request) ?? record.owner.toLowerCase()
    if (response.closed) return
    const closed = new AbortController()
    response.once('close', () => closed.abort())
    const tooLate = new AbortController()
    const timer = setTimeout(() => tooLate.abort(new TooBusyError()), limits.maxWaitMs)
    const signal = AbortSignal.any([closed.signal, tooLate.signal])
    try {
      await withSlot(requests, key, signal, async () => {
        const body = request.method === 'POST' ? await readRequest(request, signal) : Buffer.alloc(0)
        await withSlot(processes, key, signal, async () => {
          clearTimeout(timer)
          await runGit(exchange, rest, body, closed.signal)
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
    rest: string,
    body: Buffer,
    signal: AbortSignal,
  ): Promise<void> {
    const path = repository.path.slice(folder.length) + rest
    watchReader(response, path)
    program ??= await findGitBackend()
    await runGitBackend({ program, folder, path, request, body, response, signal, log: options.log })
  }

  /** Closes the connection of a client that reads too slowly, or takes too long in total. */
  function watchReader(response: ServerResponse, path: string): void {
    const close = (reason: string) => {
      options.log(`Response cut off: ${path} ${reason}`)
      response.destroy()
    }
    enforceMinimumReadRate(response, limits.minReadRate, () => close('was read too slowly'))
    const timer = setTimeout(() => close('took too long'), limits.responseTimeoutMs)
    response.once('close', () => clearTimeout(timer))
  }

  async function servePage({ response, repository, record }: Exchange): Promise<void> {
    const head = await repository.readHead()
    const commit = head === null ? null : await repository.readRef(head)
    const state =
      commit === null
        ? 'Nothing has been pushed yet.'
        : `${head?.slice('refs/heads/'.length)} is at ${commit}`
    const name = `${record.owner}/${record.name}`
    const description = record.description ? `${record.description}\n\n` : ''
    sendText(
      response,
      200,
      `${name}\n\n${description}git clone ${options.cloneUrlBase}/${name}.git\n\n${state}\n`,
    )
  }

  return (request, response) => {
    serve(request, response).catch((error: unknown) => {
      if (response.destroyed) return
      options.log(`Serving ${request.url} failed: ${error instanceof Error ? error.message : error}`)
      if (response.headersSent) response.destroy()
      else sendText(response, 500, 'The server failed. Try again later.\n')
    })
  }
}

/** The queue is full, or waiting took too long. */
class TooBusyError extends Error {
  override readonly name = 'TooBusyError'
}

async function withSlot(
  slots: BoundedSlots,
  key: string,
  signal: AbortSignal,
  action: () => Promise<void>,
): Promise<void> {
  const release = await slots.acquire(signal, key)
  if (release === null) throw new TooBusyError()
  try {
    await action()
  } finally {
    release()
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

/** Null for an invalid name. */
function findRepository(folder: string, owner: string, name: string): BareRepository | null {
  try {
    return new BareRepository(repositoryFolder(folder, owner, name))
  } catch (error) {
    if (error instanceof ForgeError) return null
    throw error
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
