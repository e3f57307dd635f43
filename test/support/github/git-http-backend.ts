import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, rename, rm, writeFile } from 'node:fs/promises'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { promisify } from 'node:util'
import { CLEAN_ENVIRONMENT, git } from './git.ts'

/** `/owner/name.git/…` of a git request. */
const GIT_PATH = /^\/([^/]+)\/([^/]+)\.git\/(info\/refs|git-upload-pack|git-receive-pack)$/

/** Serves the bare repositories of a folder over HTTP, including pushes, by git-http-backend(1). */
export class GitHttpBackend {
  readonly folder: string
  private programPath: Promise<string> | undefined

  constructor(folder: string) {
    this.folder = folder
  }

  repositoryPath(owner: string, name: string): string {
    return join(this.folder, owner.toLowerCase(), `${name.toLowerCase()}.git`)
  }

  /**
   * Creates an empty repository, or changes its hook: `preReceive` is a shell script that may decline pushes.
   */
  async create(owner: string, name: string, preReceive?: string): Promise<void> {
    const path = this.repositoryPath(owner, name)
    await mkdir(path, { recursive: true })
    await git('/', 'init', '--quiet', '--bare', '--initial-branch=main', path)
    await git(path, 'config', 'http.receivepack', 'true')
    await git(path, 'config', 'receive.fsckObjects', 'true')
    if (preReceive !== undefined) {
      await writeFile(join(path, 'hooks', 'pre-receive'), `#!/bin/sh\n${preReceive}\n`, { mode: 0o755 })
    }
  }

  async rename(from: { owner: string; name: string }, to: { owner: string; name: string }): Promise<void> {
    await rename(this.repositoryPath(from.owner, from.name), this.repositoryPath(to.owner, to.name))
  }

  async remove(owner: string, name: string): Promise<void> {
    await rm(this.repositoryPath(owner, name), { recursive: true, force: true })
  }

  static parse(url: string): { owner: string; name: string; rest: string } | undefined {
    const [, owner, name, rest] = GIT_PATH.exec(new URL(url, 'http://localhost').pathname) ?? []
    return owner && name && rest ? { owner, name, rest } : undefined
  }

  async handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const path = GitHttpBackend.parse(request.url ?? '')
    if (!path) throw new Error(`${request.url} is not a git path.`)
    const { headers } = request
    this.programPath ??= promisify(execFile)('git', ['--exec-path']).then(({ stdout }) =>
      join(stdout.trim(), 'git-http-backend'),
    )
    const child = spawn(await this.programPath, [], {
      env: {
        ...CLEAN_ENVIRONMENT,
        GIT_PROJECT_ROOT: this.folder,
        GIT_HTTP_EXPORT_ALL: '1',
        GIT_CONFIG_COUNT: '1',
        GIT_CONFIG_KEY_0: 'safe.directory',
        GIT_CONFIG_VALUE_0: '*',
        PATH_INFO: `/${path.owner.toLowerCase()}/${path.name.toLowerCase()}.git/${path.rest}`,
        QUERY_STRING: new URL(request.url ?? '', 'http://localhost').search.slice(1),
        REQUEST_METHOD: request.method,
        REMOTE_USER: 'tester',
        REMOTE_ADDR: '127.0.0.1',
        CONTENT_TYPE: headers['content-type'],
        CONTENT_LENGTH: headers['content-length'],
        HTTP_CONTENT_ENCODING: headers['content-encoding'],
      },
      stdio: ['pipe', 'pipe', 'ignore'],
    })
    const closed = once(child, 'close')
    response.once('close', () => child.kill())
    pipeline(request, child.stdin).catch(() => {}) // git may respond before it has read everything
    const parts: Buffer[] = []
    for await (const part of child.stdout) parts.push(part)
    await closed
    const output = Buffer.concat(parts)
    const headersEnd = output.indexOf('\r\n\r\n')
    let status = headersEnd < 0 ? 500 : 200
    for (const line of output.toString('latin1', 0, Math.max(0, headersEnd)).split('\r\n')) {
      const [, name = '', value = ''] = /^([\w-]+): *(.*)$/.exec(line) ?? []
      if (name.toLowerCase() === 'status') status = Number.parseInt(value, 10)
      else if (name !== '') response.setHeader(name, value)
    }
    response.writeHead(status)
    response.end(output.subarray(headersEnd + 4))
  }
}
