import { once } from 'node:events'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { createEmulator, type Emulator } from 'emulate'
import { DiscardedResponse } from './fault-github.ts'
import { removeFolder, temporaryFolder } from './git.ts'
import { GitHttpBackend } from './git-http-backend.ts'
import { requestViolations } from './request-violations.ts'

export const TOKEN = 'ghp_emulatedEmulatedEmulatedEmulated0000'
const VIEWER = 'octo-admin'

/**
 * `emulate` for REST, with real git behind it, at one address. What `emulate` takes more lightly than GitHub is made
 * strict here: an unknown token, names that differ only in case.
 */
export class EmulatedGitHub {
  readonly url: string
  readonly backend: GitHttpBackend
  /** Everything that was asked for, as `METHOD path`. */
  readonly requests: string[] = []
  /** What GitHub's own description has against them. */
  readonly violations: string[] = []
  /** Full name of every repository that was created. */
  readonly created: string[] = []
  private interception: ((apply: () => Promise<unknown>) => Promise<boolean>) | undefined
  private readonly server: Server
  private readonly emulator: Emulator
  private readonly emulatorUrl: string
  /** Lower-case full name to how it is spelled. */
  private readonly canonicalNames = new Map<string, string>()

  private constructor(
    url: string,
    backend: GitHttpBackend,
    server: Server,
    emulator: Emulator,
    port: number,
  ) {
    this.url = url
    this.backend = backend
    this.server = server
    this.emulator = emulator
    // Its own `url` is the one that it is known by, which is ours.
    this.emulatorUrl = `http://127.0.0.1:${port}`
  }

  static async start(orgs: readonly string[] = ['acme']): Promise<EmulatedGitHub> {
    const server = createServer((request, response) => {
      handle(request, response).catch((error) => response.destroy(error))
    })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
    const port = await unusedPort()
    const emulator = await createEmulator({
      service: 'github',
      port,
      baseUrl: url,
      seed: {
        tokens: { [TOKEN]: { login: VIEWER, scopes: ['repo', 'workflow'] } },
        github: {
          users: [{ login: VIEWER }],
          orgs: orgs.map((login) => ({ login, members: [{ login: VIEWER, role: 'admin' }] })),
        },
      },
    })
    const github = new EmulatedGitHub(
      url,
      new GitHttpBackend(await temporaryFolder()),
      server,
      emulator,
      port,
    )
    const handle = (request: IncomingMessage, response: ServerResponse) => github.handle(request, response)
    return github
  }

  /** Stands before every request: true cuts the connection, and `apply` does what it asks for before that. */
  intercept(interception: ((apply: () => Promise<unknown>) => Promise<boolean>) | undefined): void {
    this.interception = interception
  }

  async homepage(owner: string, name: string): Promise<unknown> {
    const answer = await fetch(`${this.url}/repos/${owner}/${name}`, {
      headers: { authorization: `Bearer ${TOKEN}` },
    })
    return ((await answer.json()) as { homepage: unknown }).homepage
  }

  async delete(owner: string, name: string): Promise<void> {
    await fetch(`${this.url}/repos/${owner}/${name}`, {
      method: 'DELETE',
      headers: { authorization: `Bearer ${TOKEN}` },
    })
  }

  async close(): Promise<void> {
    this.server.closeAllConnections()
    this.server.close()
    await this.emulator.close()
    await removeFolder(this.backend.folder)
  }

  private async handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { method = 'GET', url = '/' } = request
    this.requests.push(`${method} ${url}`)
    const isGit = GitHttpBackend.parse(url)
    const expected = isGit
      ? `Basic ${Buffer.from(`x-access-token:${TOKEN}`).toString('base64')}`
      : `Bearer ${TOKEN}`
    if (request.headers.authorization !== expected) {
      response.writeHead(401, {
        'content-type': 'application/json',
        'www-authenticate': 'Basic realm="GitHub"',
      })
      response.end('{"message":"Bad credentials"}')
      return
    }
    const serve = (to: ServerResponse) => (isGit ? this.backend.handle(request, to) : this.proxy(request, to))
    const isCut = await this.interception?.(() => serve(new DiscardedResponse(response).response))
    if (isCut) response.destroy()
    else await serve(response)
  }

  private async proxy(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { method = 'GET' } = request
    const path = this.canonicalPath(request.url ?? '/')
    const parts: Buffer[] = []
    for await (const part of request) parts.push(part)
    const text = Buffer.concat(parts).toString()
    this.violations.push(...requestViolations(method, path, text === '' ? undefined : JSON.parse(text)))
    const owner = /^\/orgs\/([^/]+)\/repos$/.exec(path)?.[1] ?? VIEWER
    const isCreation = method === 'POST' && path.endsWith('/repos')
    const sent = isCreation ? JSON.parse(text) : undefined
    const key = `${owner}/${sent?.name}`.toLowerCase()
    const spelled = this.canonicalNames.get(key)
    // Before anything is awaited: of two creates at once, whose names may differ in case, only one gets the name.
    if (isCreation && spelled === undefined) this.canonicalNames.set(key, `${owner}/${sent.name}`)
    if (isCreation && spelled !== undefined) sent.name = spelled.split('/')[1]
    const answer = await fetch(`${this.emulatorUrl}${path}`, {
      method,
      headers: {
        authorization: request.headers.authorization ?? '',
        'content-type': request.headers['content-type'] ?? 'application/json',
      },
      ...(parts.length > 0 && { body: sent ? JSON.stringify(sent) : Buffer.concat(parts) }),
      redirect: 'manual',
    })
    const [, deleted] = /^\/repos\/([^/]+\/[^/]+)$/.exec(path) ?? []
    if (isCreation && spelled === undefined && answer.status !== 201) this.canonicalNames.delete(key)
    if (isCreation && answer.status === 201) {
      this.created.push(`${owner}/${sent.name}`)
      await this.backend.create(owner, sent.name)
    }
    if (method === 'DELETE' && deleted && answer.ok) {
      this.canonicalNames.delete(deleted.toLowerCase())
      const [account = '', name = ''] = deleted.split('/')
      await this.backend.remove(account, name)
    }
    const body = Buffer.from(await answer.arrayBuffer())
    response.writeHead(answer.status, { 'content-type': answer.headers.get('content-type') ?? 'text/plain' })
    response.end(body)
  }

  /** GitHub compares names without case; `emulate` does not. */
  private canonicalPath(path: string): string {
    const [, owner = '', name = '', rest = ''] = /^\/repos\/([^/]+)\/([^/?]+)(.*)$/.exec(path) ?? []
    if (name !== '')
      return `/repos/${this.canonicalNames.get(`${owner}/${name}`.toLowerCase()) ?? `${owner}/${name}`}${rest}`
    return path.replace(/^\/(orgs|users)\/([^/?]+)/, (_all, kind, login) => `/${kind}/${login.toLowerCase()}`)
  }
}

async function unusedPort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}
