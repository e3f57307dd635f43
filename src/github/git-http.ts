import { open } from 'node:fs/promises'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { join, resolve } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { BareRepository } from './bare-repository.ts'
import { BoundedSlots } from './bounded-slots.ts'
import { type RepositoryRecord, repositoryFolder } from './forge-folder.ts'
import { findGitBackend, runGitBackend } from './git-backend.ts'
import { GitHubError } from './github-error.ts'
import { hasCode } from './system-error.ts'

export interface GitHttpOptions {
  /** The local forge's. */
  folder: string
  /** Where this handler answers, for the clone line on a repository's page: `http://127.0.0.1:3000/git`. */
  cloneUrlBase: string
  /** Whether a request may read what an owner has. `hidden` is answered as if there were nothing. */
  mayRead?(
    request: IncomingMessage,
    response: ServerResponse,
    owner: string,
  ): Promise<'allowed' | 'hidden' | 'answered'>
  /** Is told once when there is no git command, and of what git complains about. */
  log(message: string): void
  /** How many git processes may run at once; more wait, and very many are told to come back. */
  maxProcesses?: number
  gitCommand?: string
}

type Handler = (request: IncomingMessage, response: ServerResponse) => void

interface Exchange {
  request: IncomingMessage
  response: ServerResponse
  repository: BareRepository
  record: RepositoryRecord
}

const MAX_WAITING = 64
const IDLE_MS = 120_000
const PATH = /^\/([^/]+)\/([^/]+?)(?:\.git)?(\/.*)?$/
/** What a "dumb" client reads, as files: gitprotocol-http(5). Nothing else of a repository is shown. */
const FILE =
  /^\/(HEAD|info\/refs|objects\/info\/packs|objects\/pack\/pack-[0-9a-f]{40}\.(?:pack|idx)|objects\/[0-9a-f]{2}\/[0-9a-f]{38})$/
const READ_ONLY =
  'This is read only: repositories are written by deployments. Push to a remote of your own instead.\n'

/**
 * Serves a local forge's repositories for `git clone` and `git fetch`, read only, below where it is mounted
 * (`app.use('/git', gitHttpHandler(…))`). With a git command: smart HTTP, all protocol versions. Without: the
 * files that "dumb" HTTP needs. Names compare without case; who may read is the caller's to say: without `mayRead`, everybody.
 */
export function gitHttpHandler(options: GitHttpOptions): Handler {
  const slots = new BoundedSlots(options.maxProcesses ?? 8, MAX_WAITING)
  const folder = resolve(options.folder)
  const backend = findGitBackend(options.gitCommand ?? 'git').then((found) => {
    if (found === null)
      options.log('No git command here: repositories are served by "dumb" HTTP, without --depth.')
    return found
  })

  async function serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const [path = '', query] = (request.url ?? '/').split('?', 2)
    const [, owner = '', name = '', rest = '/'] = PATH.exec(path) ?? []
    const right = (await options.mayRead?.(request, response, owner)) ?? 'allowed'
    if (right === 'answered') return
    const repository = right === 'allowed' ? findRepository(folder, owner, name) : null
    const record = (await repository?.record()) ?? null
    if (repository === null || record === null)
      return answer(response, 404, 'There is no such repository here.\n')

    const exchange: Exchange = { request, response, repository, record }
    const service = new URLSearchParams(query).get('service')
    if (rest === '/git-receive-pack' || service === 'git-receive-pack')
      return answer(response, 403, READ_ONLY)
    const isRead = request.method === 'GET' || request.method === 'HEAD'
    const isSmart =
      (isRead && rest === '/info/refs' && service === 'git-upload-pack') ||
      (request.method === 'POST' && rest === '/git-upload-pack')
    const program = isSmart ? await backend : null
    if (program !== null) return serveSmart(exchange, program, rest)
    if (!isRead) return answer(response, 405, 'Only reading is possible here.\n')
    if (rest === '/') return servePage(exchange)
    if (FILE.test(rest)) return serveFile(exchange, rest)
    return answer(response, 404, 'There is no such page here.\n')
  }

  async function serveSmart({ request, response, repository }: Exchange, program: string, rest: string) {
    const closed = new AbortController()
    response.once('close', () => closed.abort())
    const leave = await slots.enter(closed.signal)
    if (leave === null) {
      response.setHeader('Retry-After', '2')
      return answer(response, 503, 'Too many clones at once. Try again in a few seconds.\n')
    }
    try {
      // A reader that stalls would keep others out.
      response.setTimeout(IDLE_MS, () => response.destroy())
      const path = repository.path.slice(folder.length) + rest
      await runGitBackend({
        program,
        folder,
        path,
        request,
        response,
        signal: closed.signal,
        log: options.log,
      })
    } finally {
      leave()
    }
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
    answer(response, 200, `${name}\n\n${about}git clone ${options.cloneUrlBase}/${name}.git\n\n${where}\n`)
  }

  return (request, response) => {
    serve(request, response).catch((error: unknown) => {
      if (response.destroyed) return
      options.log(`Serving ${request.url} failed: ${error instanceof Error ? error.message : error}`)
      if (response.headersSent) response.destroy()
      else answer(response, 500, 'Something went wrong here.\n')
    })
  }
}

/** Null for names that no repository can have. */
function findRepository(folder: string, owner: string, name: string): BareRepository | null {
  try {
    return new BareRepository(repositoryFolder(folder, owner, name))
  } catch (error) {
    if (error instanceof GitHubError) return null
    throw error
  }
}

async function serveFile({ request, response, repository }: Exchange, path: string): Promise<void> {
  const file = await open(join(repository.path, path)).catch((error: unknown) => {
    if (hasCode(error, 'ENOENT')) return null
    throw error
  })
  if (file === null) return answer(response, 404, 'There is no such file here.\n')
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

function answer(response: ServerResponse, status: number, text: string): void {
  response.writeHead(status, {
    'Content-Type': 'text/plain; charset=utf-8',
    'X-Content-Type-Options': 'nosniff',
    'Cache-Control': 'no-cache',
  })
  response.end(text)
}
