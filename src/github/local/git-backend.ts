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
 * For git and each of its children: no core file, 512 MiB of memory, 60 s of CPU time. Ignores limits that
 * the system refuses.
 */
const WITH_LIMITS = `for limit in '-c 0' '-d 524288' '-t 60'; do ulimit $limit 2>/dev/null; done; exec "$0"`

/**
 * A clone copies stored objects: git computes no deltas, and evaluates no filter with
 * an arbitrary expression.
 */
const GIT_CONFIG = {
  // The folder may belong to another user than the server's.
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

interface GitBackendRun {
  /** The path of git-http-backend(1), from `findGitBackend`. */
  program: string
  /** The folder of all repositories, absolute. */
  folder: string
  /** Below the folder: `/org/repo.git/info/refs`. */
  path: string
  request: IncomingMessage
  /** The request's decompressed body, git's whole input. */
  body: Buffer
  response: ServerResponse
  /** Aborted when the response is closed or takes too long; this terminates git and its children. */
  signal: AbortSignal
  log(message: string): void
}

/**
 * Finds git-http-backend(1). Rejects if git is not installed, or if the system
 * packages it separately (Alpine).
 */
export async function findGitBackend(): Promise<string> {
  const options = { env: { PATH: process.env.PATH }, timeout: FIND_TIMEOUT_MS }
  const { stdout } = await promisify(execFile)('git', ['--exec-path'], options)
  const program = join(stdout.trim(), 'git-http-backend')
  await access(program, constants.X_OK)
  return program
}

/**
 * Handles one request with git's CGI program. Resolves when git has ended, even if the
 * client has disconnected.
 */
export async function runGitBackend(run: GitBackendRun): Promise<void> {
  const { body, response, signal, log } = run
  const git = startGit(run)
  const ended = once(git, 'close')
  ended.catch(() => {}) // awaited below, after the response is relayed
  const end = () => terminateGroup(git)
  signal.addEventListener('abort', end)
  if (signal.aborted) end()

  let errorOutput = ''
  git.stderr.setEncoding('utf8').on('data', (text: string) => {
    errorOutput = (errorOutput + text).slice(0, MAX_STDERR_LENGTH)
  })
  git.stdin.on('error', () => {}) // git may respond before it has read everything
  git.stdin.end(body)
  try {
    await relayResponse(git.stdout, response)
  } catch (error) {
    end()
    if (!signal.aborted) throw error
  } finally {
    await ended
    signal.removeEventListener('abort', end)
    // Git reports a lost client as an error.
    const isClientGone = signal.aborted && !response.writableFinished
    if (errorOutput !== '' && !isClientGone) log(`git http-backend: ${errorOutput.trim()}`)
  }
}

/**
 * In its own process group, so that git's children can be terminated, too; with limits
 * where a shell can set them.
 */
function startGit(run: GitBackendRun) {
  const options = { env: environment(run), cwd: run.folder, stdio: 'pipe' } as const
  if (process.platform === 'win32') return spawn(run.program, [], options)
  return spawn('/bin/sh', ['-c', WITH_LIMITS, run.program], { ...options, detached: true })
}

/** SIGTERM first, so that git removes its temporary files. */
function terminateGroup(git: ChildProcess): void {
  const signalGroup = (name: NodeJS.Signals) => {
    if (process.platform === 'win32' || git.pid === undefined) git.kill(name)
    else {
      try {
        process.kill(-git.pid, name)
      } catch {
        // the whole group has ended
      }
    }
  }
  signalGroup('SIGTERM')
  const timer = setTimeout(() => signalGroup('SIGKILL'), KILL_AFTER_MS)
  git.once('close', () => clearTimeout(timer))
}

/** Only the PATH of the server's environment: no configuration, no credentials, no locale. */
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

/** A CGI response (RFC 3875, 6): header lines, an empty line, the body. */
async function relayResponse(stdout: Readable, response: ServerResponse): Promise<void> {
  let head = Buffer.alloc(0)
  let bodyAt = -1
  for await (const chunk of stdout.iterator({ destroyOnReturn: false })) {
    head = Buffer.concat([head, chunk])
    bodyAt = head.indexOf('\r\n\r\n')
    if (bodyAt >= 0) break
    if (head.length > MAX_HEADER_BYTES) throw new Error('git http-backend responded without headers')
  }
  if (bodyAt < 0) throw new Error('git http-backend ended without a response')
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
