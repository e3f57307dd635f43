import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { access, constants } from 'node:fs/promises'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { promisify } from 'node:util'

const MAX_HEADER_BYTES = 16 * 1024
const MAX_STDERR_LENGTH = 2_000
const FIND_TIMEOUT_MS = 10_000
const KILL_AFTER_MS = 2_000

/**
 * For git and each of its children: no core file, 512 MiB of memory of its own, 60 s of computing. Where a system
 * refuses a limit, git runs without that one.
 */
const WITH_LIMITS = `for limit in '-c 0' '-d 524288' '-t 60'; do ulimit $limit 2>/dev/null; done; exec "$0"`

/** A clone copies what is stored. Nothing here computes deltas, or evaluates what only the client describes. */
const GIT_CONFIG = {
  // The folder may belong to another user than the one who serves it.
  'safe.directory': '*',
  'http.receivepack': 'false',
  'pack.threads': '1',
  'pack.window': '0',
  'core.packedGitWindowSize': '16m',
  'core.packedGitLimit': '128m',
  'uploadpack.allowFilter': 'true',
  'uploadpackfilter.allow': 'false',
  'uploadpackfilter.blob:none.allow': 'true',
  'uploadpackfilter.blob:limit.allow': 'true',
  'uploadpackfilter.tree.allow': 'true',
  'uploadpackfilter.object:type.allow': 'true',
}

export interface GitBackendRun {
  /** From `findGitBackend`. */
  program: string
  /** The folder of all repositories, absolute. */
  folder: string
  /** Below the folder: `/org/repo.git/info/refs`. */
  path: string
  request: IncomingMessage
  /** The request's body, decompressed; git reads nothing else. */
  body: Buffer
  response: ServerResponse
  /** Aborted when the response is closed or has taken too long; git is ended then, with its children. */
  signal: AbortSignal
  log(message: string): void
}

/** Where git keeps git-http-backend(1); null without git, or where a system has split it off (Alpine). */
export async function findGitBackend(gitCommand: string): Promise<string | null> {
  try {
    const { stdout } = await promisify(execFile)(gitCommand, ['--exec-path'], { timeout: FIND_TIMEOUT_MS })
    const program = join(stdout.trim(), 'git-http-backend')
    await access(program, constants.X_OK)
    return program
  } catch {
    return null // what is not there is not used; the caller says so
  }
}

/** Answers one request by git's own CGI program. Resolves when git has ended, whatever became of the client. */
export async function runGitBackend(run: GitBackendRun): Promise<void> {
  const { body, response, signal, log } = run
  const git = startGit(run)
  const ended = once(git, 'close')
  ended.catch(() => {}) // awaited below, after what is read first
  const end = () => terminateGroup(git)
  signal.addEventListener('abort', end)
  if (signal.aborted) end()

  let complaint = ''
  git.stderr.setEncoding('utf8').on('data', (text: string) => {
    complaint = (complaint + text).slice(0, MAX_STDERR_LENGTH)
  })
  git.stdin.on('error', () => {}) // git may answer before it has read all
  git.stdin.end(body)
  try {
    await relayResponse(git.stdout, response)
  } catch (error) {
    end()
    if (!signal.aborted) throw error
  } finally {
    await ended
    signal.removeEventListener('abort', end)
    const isUnheard = signal.aborted && !response.writableFinished // git complains that its reader is gone
    if (complaint !== '' && !isUnheard) log(`git http-backend: ${complaint.trim()}`)
  }
}

/** In a process group of its own, so that all of it can be ended; with limits where there is a shell to set them. */
function startGit(run: GitBackendRun) {
  const options = { env: environment(run), cwd: run.folder, stdio: 'pipe' } as const
  if (process.platform === 'win32') return spawn(run.program, [], options)
  return spawn('/bin/sh', ['-c', WITH_LIMITS, run.program], { ...options, detached: true })
}

/** Asks first: git removes its temporary files then. */
function terminateGroup(git: ChildProcess): void {
  const signalGroup = (name: NodeJS.Signals) => {
    if (process.platform === 'win32' || git.pid === undefined) git.kill(name)
    else {
      try {
        process.kill(-git.pid, name)
      } catch {
        // all of them have ended
      }
    }
  }
  signalGroup('SIGTERM')
  const timer = setTimeout(() => signalGroup('SIGKILL'), KILL_AFTER_MS)
  git.once('close', () => clearTimeout(timer))
}

/** Nothing of ours but the path: no configuration, no credentials, no locale of whoever runs the server. */
function environment({ folder, path, request, body }: GitBackendRun): NodeJS.ProcessEnv {
  const { headers } = request
  const protocol = String(headers['git-protocol'] ?? '')
  return {
    PATH: process.env.PATH,
    LC_ALL: 'C',
    HOME: folder,
    GIT_CONFIG_NOSYSTEM: '1',
    GIT_CONFIG_GLOBAL: '/dev/null',
    ...configuration(),
    GIT_PROJECT_ROOT: folder,
    GIT_HTTP_EXPORT_ALL: '1',
    GIT_PROTOCOL: /^[\w.:=-]{1,100}$/.test(protocol) ? protocol : undefined,
    PATH_INFO: path,
    QUERY_STRING: request.method === 'POST' ? '' : 'service=git-upload-pack',
    REQUEST_METHOD: request.method,
    REMOTE_ADDR: request.socket.remoteAddress,
    CONTENT_TYPE: headers['content-type'],
    CONTENT_LENGTH: String(body.length),
  }
}

function configuration(): NodeJS.ProcessEnv {
  const entries = Object.entries(GIT_CONFIG)
  return Object.fromEntries([
    ['GIT_CONFIG_COUNT', String(entries.length)],
    ...entries.flatMap(([key, value], index) => [
      [`GIT_CONFIG_KEY_${index}`, key],
      [`GIT_CONFIG_VALUE_${index}`, value],
    ]),
  ])
}

/** A CGI answer (RFC 3875, 6): header lines, an empty line, the body. */
async function relayResponse(stdout: Readable, response: ServerResponse): Promise<void> {
  let head = Buffer.alloc(0)
  let bodyAt = -1
  for await (const chunk of stdout.iterator({ destroyOnReturn: false })) {
    head = Buffer.concat([head, chunk])
    bodyAt = head.indexOf('\r\n\r\n')
    if (bodyAt >= 0) break
    if (head.length > MAX_HEADER_BYTES) throw new Error('git http-backend answered without headers')
  }
  if (bodyAt < 0) throw new Error('git http-backend ended without an answer')
  let status = 200
  for (const line of head.toString('latin1', 0, bodyAt).split('\r\n')) {
    const [, name = '', value = ''] = /^([\w-]+): *(.*)$/.exec(line) ?? []
    if (name.toLowerCase() === 'status') status = Number.parseInt(value, 10)
    else if (name !== '') response.setHeader(name, value)
  }
  response.writeHead(status)
  response.write(head.subarray(bodyAt + 4))
  await pipeline(stdout, response)
}
