import { once } from 'node:events'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { createEmulator, type Emulator } from 'emulate'
import type { Interception } from '../deploy-with-crashes.ts'
import { findFreePort } from '../test-server.ts'
import { DiscardedResponse } from './fault-github.ts'
import { removeFolder, temporaryFolder } from './git.ts'
import { GitHttpBackend } from './git-http-backend.ts'
import { requestViolations } from './request-violations.ts'

export const TOKEN = 'ghp_emulatedEmulatedEmulatedEmulated0000'
const VIEWER = 'octo-admin'

/**
 * `emulate` for REST and real git behind one URL. Stricter than `emulate`, like GitHub: it rejects unknown
 * tokens, and names that differ only in case are equal.
 */
export class EmulatedGitHub {
  readonly url: string
  readonly backend: GitHttpBackend
  /** `METHOD path` of every request. */
  readonly requests: string[] = []
  /** Requests that violate GitHub's description of its API. */
  readonly violations: string[] = []
  /** The full name of every created repository. */
  readonly created: string[] = []
  private interception: Interception | undefined
  private readonly server: Server
  private readonly emulator: Emulator
  private readonly emulatorUrl: string
  /** Lower-case full name to the name as spelled at its creation. */
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
    // The emulator's own `url` is its public one, which is ours.
    this.emulatorUrl = `http://127.0.0.1:${port}`
  }

  static async start(orgs: readonly string[] = ['acme']): Promise<EmulatedGitHub> {
    const server = createServer((request, response) => {
      handle(request, response).catch((error) => response.destroy(error))
    })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
    const port = await findFreePort()
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

  /** Called before every request. True closes the connection; `apply` handles the request before that. */
  intercept(interception: Interception | undefined): void {
    this.interception = interception
  }

  async homepage(owner: string, name: string): Promise<unknown> {
    const response = await fetch(`${this.url}/repos/${owner}/${name}`, {
      headers: { authorization: `Bearer ${TOKEN}` },
    })
    return ((await response.json()) as { homepage: unknown }).homepage
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
    const isGit = GitHttpBackend.parse(url) !== undefined
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
    const serve = (target: ServerResponse) =>
      isGit ? this.backend.handle(request, target) : this.proxy(request, target)
    const isClosed = await this.interception?.(() => serve(new DiscardedResponse(response).response))
    if (isClosed) response.destroy()
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
    const creation = isCreation ? JSON.parse(text) : undefined
    const key = `${owner}/${creation?.name}`.toLowerCase()
    const existingName = this.canonicalNames.get(key)
    // Set before the first await: of two concurrent creates, whose names may differ in
    // case, only one gets the name.
    if (isCreation && existingName === undefined) this.canonicalNames.set(key, `${owner}/${creation.name}`)
    if (isCreation && existingName !== undefined) creation.name = existingName.split('/')[1]
    const upstream = await fetch(`${this.emulatorUrl}${path}`, {
      method,
      headers: {
        authorization: request.headers.authorization ?? '',
        'content-type': request.headers['content-type'] ?? 'application/json',
      },
      ...(parts.length > 0 && { body: creation ? JSON.stringify(creation) : Buffer.concat(parts) }),
      redirect: 'manual',
    })
    const [, deleted] = /^\/repos\/([^/]+\/[^/]+)$/.exec(path) ?? []
    if (isCreation && existingName === undefined && upstream.status !== 201) this.canonicalNames.delete(key)
    if (isCreation && upstream.status === 201) {
      this.created.push(`${owner}/${creation.name}`)
      await this.backend.create(owner, creation.name)
    }
    if (method === 'DELETE' && deleted && upstream.ok) {
      this.canonicalNames.delete(deleted.toLowerCase())
      const [account = '', name = ''] = deleted.split('/')
      await this.backend.remove(account, name)
    }
    const body = Buffer.from(await upstream.arrayBuffer())
    response.writeHead(upstream.status, {
      'content-type': upstream.headers.get('content-type') ?? 'text/plain',
    })
    response.end(body)
  }

  /** Replaces names with their canonical spelling, since `emulate` compares them with case. */
  private canonicalPath(path: string): string {
    const [, owner = '', name = '', rest = ''] = /^\/repos\/([^/]+)\/([^/?]+)(.*)$/.exec(path) ?? []
    if (name !== '')
      return `/repos/${this.canonicalNames.get(`${owner}/${name}`.toLowerCase()) ?? `${owner}/${name}`}${rest}`
    return path.replace(/^\/(orgs|users)\/([^/?]+)/, (_all, kind, login) => `/${kind}/${login.toLowerCase()}`)
  }
}
