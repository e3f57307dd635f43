import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { access, constants } from 'node:fs/promises'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { promisify } from 'node:util'

const LONGEST_HEADER_BYTES = 16 * 1024
const LONGEST_COMPLAINT = 2_000

export interface GitBackendRun {
  /** From `findGitBackend`. */
  program: string
  /** The folder of all repositories, absolute. */
  folder: string
  /** Below the folder: `/org/repo.git/info/refs`. */
  path: string
  request: IncomingMessage
  response: ServerResponse
  /** Aborted when the response is closed; git is ended then. */
  signal: AbortSignal
  log(message: string): void
}

/** Where git keeps git-http-backend(1); null without git, or where a system has split it off (Alpine). */
export async function findGitBackend(gitCommand: string): Promise<string | null> {
  try {
    const { stdout } = await promisify(execFile)(gitCommand, ['--exec-path'])
    const program = join(stdout.trim(), 'git-http-backend')
    await access(program, constants.X_OK)
    return program
  } catch {
    return null // what is not there is not used; the caller says so
  }
}

/** Answers one request by git's own CGI program. Resolves when git has ended, whatever became of the client. */
export async function runGitBackend(run: GitBackendRun): Promise<void> {
  const { request, response, signal, log } = run
  const git = spawn(run.program, [], { env: environment(run), cwd: run.folder, stdio: 'pipe' })
  const ended = once(git, 'close')
  ended.catch(() => {}) // awaited below, after what is read first
  const end = () => git.kill()
  signal.addEventListener('abort', end)
  if (signal.aborted) end()

  let complaint = ''
  git.stderr.setEncoding('utf8').on('data', (text: string) => {
    complaint = (complaint + text).slice(0, LONGEST_COMPLAINT)
  })
  // Git may answer before it has read all, and then does not care for the rest.
  pipeline(request, git.stdin).catch(() => {})
  try {
    await relayAnswer(git.stdout, response)
  } catch (error) {
    end()
    if (!signal.aborted) throw error
  } finally {
    await ended
    signal.removeEventListener('abort', end)
    if (complaint !== '' && !signal.aborted) log(`git http-backend: ${complaint.trim()}`)
  }
}

/** Nothing of ours but the path: no configuration, no credentials, no locale of whoever runs the server. */
function environment({ folder, path, request }: GitBackendRun): NodeJS.ProcessEnv {
  const { headers } = request
  return {
    PATH: process.env.PATH,
    LC_ALL: 'C',
    HOME: folder,
    GIT_CONFIG_NOSYSTEM: '1',
    GIT_CONFIG_GLOBAL: '/dev/null',
    GIT_CONFIG_COUNT: '2',
    // The folder may belong to another user than the one who serves it.
    GIT_CONFIG_KEY_0: 'safe.directory',
    GIT_CONFIG_VALUE_0: '*',
    GIT_CONFIG_KEY_1: 'uploadpack.allowFilter',
    GIT_CONFIG_VALUE_1: 'true',
    GIT_PROJECT_ROOT: folder,
    GIT_HTTP_EXPORT_ALL: '1',
    GIT_PROTOCOL: single(headers['git-protocol']),
    PATH_INFO: path,
    QUERY_STRING: request.method === 'POST' ? '' : 'service=git-upload-pack',
    REQUEST_METHOD: request.method,
    REMOTE_ADDR: request.socket.remoteAddress,
    CONTENT_TYPE: headers['content-type'],
    CONTENT_LENGTH: headers['content-length'],
    HTTP_CONTENT_ENCODING: headers['content-encoding'],
  }
}

function single(header: string | string[] | undefined): string | undefined {
  return Array.isArray(header) ? header[0] : header
}

/** A CGI answer (RFC 3875, 6): header lines, an empty line, the body. */
async function relayAnswer(stdout: Readable, response: ServerResponse): Promise<void> {
  let head = Buffer.alloc(0)
  let bodyAt = -1
  for await (const chunk of stdout.iterator({ destroyOnReturn: false })) {
    head = Buffer.concat([head, chunk])
    bodyAt = head.indexOf('\r\n\r\n')
    if (bodyAt >= 0) break
    if (head.length > LONGEST_HEADER_BYTES) throw new Error('git http-backend answered without headers')
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
