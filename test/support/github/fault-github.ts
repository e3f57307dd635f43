import { once } from 'node:events'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { removeFolder, temporaryFolder } from './git.ts'
import { GitHttpBackend } from './git-http-backend.ts'
import { graphqlViolations } from './graphql-violations.ts'
import { requestViolations } from './request-violations.ts'
import { readCertificate } from './tls/certificate.ts'

export interface FakeRepository {
  id: number
  owner: string
  name: string
  private: boolean
  description: string | null
  homepage: string | null
  created_at: string
  /** The number of requests for it that still get a 404. */
  hiddenRequestCount: number
}

export interface FakeResponse {
  status: number
  body?: unknown
  headers?: Record<string, string>
}

/**
 * Replaces the normal response, which `apply` produces. Null closes the connection;
 * undefined keeps the response.
 */
export type Fault = (
  apply: () => Promise<FakeResponse>,
) => Promise<FakeResponse | null | undefined> | FakeResponse | null | undefined

interface ApiRequest {
  method: string
  path: string
  body: Record<string, unknown>
}

/**
 * A fake GitHub in memory, with real git: as strict as the real one, with failures that tests choose.
 * Names are case-insensitive, every request requires a credential and is validated against GitHub's
 * own description of its API.
 */
export class FaultGitHub {
  readonly token = 'ghp_secretSecretSecretSecretSecret000001'
  readonly viewer = { login: 'octo-admin', id: 7 }
  /** Headers of every API response, such as scopes. */
  readonly headers: Record<string, string> = {}
  readonly orgs = new Map<string, Record<string, unknown>>([['acme', { login: 'acme', id: 9 }]])
  readonly repositories = new Map<string, FakeRepository>()
  /** Former full name in lower case, to the repository's id. */
  readonly renamed = new Map<string, number>()
  /** `METHOD path` of every request. */
  readonly requests: string[] = []
  /** Requests that violate GitHub's description of its API. */
  readonly violations: string[] = []
  /** Responds to requests with an App's JSON web token. */
  appHandler: ((authorization: string, line: string) => FakeResponse) | undefined
  /** The response body for a GraphQL document with these variables. */
  graphqlHandler: ((query: string, variables: Record<string, unknown>) => unknown) | undefined
  /** How far its clock, which every response has as its `date`, is ahead of the local clock. */
  clockAheadMs = 0
  readonly backend: GitHttpBackend
  readonly url: string
  /** The path below the origin, as on Enterprise Server. */
  readonly basePath: string
  private readonly server: Server
  private readonly faults: { pattern: RegExp; fault: Fault; isPermanent: boolean }[] = []
  private nextId = 1_000

  private constructor(origin: string, base: string, backend: GitHttpBackend, server: Server) {
    this.basePath = base
    this.url = `${origin}${base}`
    this.backend = backend
    this.server = server
  }

  static async start({ base = '', isSecure = false } = {}): Promise<FaultGitHub> {
    const handle = (request: IncomingMessage, response: ServerResponse) => {
      github.handle(request, response).catch(() => response.destroy())
    }
    const server = isSecure ? createTlsServer(await readCertificate(), handle) : createServer(handle)
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    const origin = `http${isSecure ? 's' : ''}://127.0.0.1:${(server.address() as AddressInfo).port}`
    const github = new FaultGitHub(origin, base, new GitHttpBackend(await temporaryFolder()), server)
    return github
  }

  get origin(): string {
    return new URL(this.url).origin
  }

  /** Each fault applies to one of the next matching requests, in this order. */
  next(pattern: RegExp, ...faults: Fault[]): void {
    for (const fault of faults) this.faults.push({ pattern, fault, isPermanent: false })
  }

  /** The fault applies to all matching requests from now on. */
  always(pattern: RegExp, fault: Fault): void {
    this.faults.push({ pattern, fault, isPermanent: true })
  }

  clearFaults(): void {
    this.faults.length = 0
  }

  /** Adds a repository as another user would create it. */
  async addRepository(
    owner: string,
    name: string,
    changes: Partial<FakeRepository> = {},
  ): Promise<FakeRepository> {
    const repository: FakeRepository = {
      id: this.nextId++,
      owner,
      name,
      private: true,
      description: null,
      homepage: null,
      created_at: new Date().toISOString(),
      hiddenRequestCount: 0,
      ...changes,
    }
    // Set before the first await: of two concurrent creates, only one gets the name.
    this.repositories.set(`${owner}/${name}`.toLowerCase(), repository)
    await this.backend.create(owner, name)
    return repository
  }

  /** Renames a repository as its owner would: the old name redirects to the new one. */
  async rename(from: string, to: string): Promise<void> {
    const repository = this.repositories.get(from.toLowerCase())
    if (!repository) throw new Error(`${from} does not exist.`)
    const [owner = '', name = ''] = to.split('/')
    this.repositories.delete(from.toLowerCase())
    this.repositories.set(to.toLowerCase(), repository)
    this.renamed.set(from.toLowerCase(), repository.id)
    await this.backend.rename(repository, { owner, name })
    Object.assign(repository, { owner, name })
  }

  now(): number {
    return Date.now() + this.clockAheadMs
  }

  countRequests(pattern: RegExp): number {
    return this.requests.filter((each) => pattern.test(each)).length
  }

  async close(): Promise<void> {
    this.server.closeAllConnections()
    this.server.close()
    await removeFolder(this.backend.folder)
  }

  private async handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { method = 'GET', url = '/' } = request
    this.requests.push(`${method} ${url}`)
    response.setHeader('date', new Date(this.now()).toUTCString())
    const gitPath = GitHttpBackend.parse(url)
    const fault = this.takeFault(`${method} ${url}`)
    if (gitPath) {
      if (fault === undefined) return this.handleGit(request, response, gitPath)
      // If the fault applies the request, the backend handles it and its response is discarded.
      const reply = await fault(async () => {
        await this.handleGit(request, new DiscardedResponse(response).response, gitPath)
        return { status: 200 }
      })
      return reply === undefined ? this.handleGit(request, response, gitPath) : sendReply(response, reply)
    }
    const parts: Buffer[] = []
    for await (const part of request) parts.push(part)
    const text = Buffer.concat(parts).toString()
    const path = url.startsWith(this.basePath) ? url.slice(this.basePath.length) : url
    const body: Record<string, unknown> = text === '' ? {} : JSON.parse(text)
    if (path === '/api/graphql' && this.graphqlHandler) {
      const { query, variables } = body as { query: string; variables: Record<string, unknown> }
      this.violations.push(...graphqlViolations(query, variables))
      return sendReply(response, {
        status: 200,
        headers: this.headers,
        body: this.graphqlHandler(query, variables),
      })
    }
    this.violations.push(...requestViolations(method, path, text === '' ? undefined : body))
    if (!request.headers['x-github-api-version']) this.violations.push(`${method} ${path}: no version`)
    const { authorization = '' } = request.headers
    if (this.appHandler && authorization.split('.').length === 3) {
      return sendReply(response, this.appHandler(authorization, `${method} ${path}`))
    }
    if (authorization !== `Bearer ${this.token}`) {
      return sendReply(response, {
        status: 401,
        body: { message: authorization ? 'Bad credentials' : 'Requires authentication' },
      })
    }
    const apply = () => this.respond({ method, path, body })
    const replacement = await fault?.(apply)
    const reply = replacement === undefined ? await apply() : replacement
    sendReply(response, reply && { ...reply, headers: { ...this.headers, ...reply.headers } })
  }

  private takeFault(line: string): Fault | undefined {
    const index = this.faults.findIndex(({ pattern }) => pattern.test(line))
    const found = this.faults[index]
    if (found && !found.isPermanent) this.faults.splice(index, 1)
    return found?.fault
  }

  private async handleGit(
    request: IncomingMessage,
    response: ServerResponse,
    { owner, name, rest }: { owner: string; name: string; rest: string },
  ): Promise<void> {
    const credentials = request.headers.authorization?.replace(/^Basic /, '') ?? ''
    if (Buffer.from(credentials, 'base64').toString() !== `x-access-token:${this.token}`) {
      return sendReply(response, { status: 401, headers: { 'www-authenticate': 'Basic realm="GitHub"' } })
    }
    const key = `${owner}/${name}`.toLowerCase()
    if (!this.repositories.has(key)) {
      const target = [...this.repositories.values()].find(({ id }) => id === this.renamed.get(key))
      if (!target) return sendReply(response, { status: 404, body: 'Repository not found.' })
      const { search } = new URL(request.url ?? '', this.origin)
      const location = `${this.origin}/${target.owner}/${target.name}.git/${rest}${search}`
      return sendReply(response, { status: 301, headers: { location } })
    }
    await this.backend.handle(request, response)
  }

  private async respond({ method, path, body }: ApiRequest): Promise<FakeResponse> {
    if (method === 'GET' && path === '/user') return { status: 200, body: this.viewer }
    const orgPath = /^\/orgs\/([^/]+)(\/repos)?$/.exec(path)
    if (orgPath?.[1]) {
      const org = this.orgs.get(orgPath[1].toLowerCase())
      if (!org) return NOT_FOUND
      if (method === 'GET') return { status: 200, body: org }
      if (method === 'POST') return this.createRepository(String(org.login), body)
    }
    if (method === 'POST' && path === '/user/repos') return this.createRepository(this.viewer.login, body)
    const byId = /^\/repositories\/(\d+)$/.exec(path)
    const byName = /^\/repos\/([^/]+\/[^/]+)$/.exec(path)?.[1]?.toLowerCase()
    const repository = byId
      ? [...this.repositories.values()].find(({ id }) => id === Number(byId[1]))
      : this.repositories.get(byName ?? '')
    if (!repository) {
      const id = this.renamed.get(byName ?? '')
      if (id === undefined) return NOT_FOUND
      return {
        status: method === 'GET' ? 301 : 307,
        headers: { location: `${this.url}/repositories/${id}` },
        body: { message: 'Moved Permanently', url: `${this.url}/repositories/${id}` },
      }
    }
    if (repository.hiddenRequestCount > 0) {
      repository.hiddenRequestCount--
      return NOT_FOUND
    }
    if (method === 'PATCH') repository.homepage = String(body.homepage) || null
    return method === 'GET' || method === 'PATCH' ? { status: 200, body: this.toJson(repository) } : NOT_FOUND
  }

  private async createRepository(owner: string, body: Record<string, unknown>): Promise<FakeResponse> {
    const name = String(body.name)
    if (this.repositories.has(`${owner}/${name}`.toLowerCase())) return NAME_TAKEN
    const repository = await this.addRepository(owner, name, {
      private: body.private === true,
      description: typeof body.description === 'string' ? body.description : null,
      homepage: typeof body.homepage === 'string' ? body.homepage : null,
    })
    return { status: 201, body: this.toJson(repository) }
  }

  private toJson({
    hiddenRequestCount: _hidden,
    owner,
    ...repository
  }: FakeRepository): Record<string, unknown> {
    const full_name = `${owner}/${repository.name}`
    return {
      ...repository,
      full_name,
      owner: { login: owner },
      visibility: repository.private ? 'private' : 'public',
      html_url: `${this.origin}/${full_name}`,
      clone_url: `${this.origin}/${full_name}.git`,
      default_branch: 'main',
    }
  }
}

const NOT_FOUND: FakeResponse = { status: 404, body: { message: 'Not Found', status: '404' } }

/** As recorded from GitHub in 2025. */
export const NAME_TAKEN: FakeResponse = {
  status: 422,
  body: {
    message: 'Repository creation failed.',
    errors: [
      {
        resource: 'Repository',
        code: 'custom',
        field: 'name',
        message: 'name already exists on this account',
      },
    ],
    documentation_url: 'https://docs.github.com/rest/repos/repos#create-an-organization-repository',
    status: '422',
  },
}

function sendReply(response: ServerResponse, reply: FakeResponse | null): void {
  if (reply === null) {
    response.destroy()
    return
  }
  const { status, body, headers } = reply
  const isText = typeof body === 'string'
  response.writeHead(status, {
    'content-type': isText ? 'text/plain' : 'application/json; charset=utf-8',
    'x-github-request-id': 'FA17:1:2:3',
    ...headers,
  })
  response.end(body === undefined ? '' : isText ? body : JSON.stringify(body))
}

/** Accepts a response without sending it to the client. */
export class DiscardedResponse {
  readonly response: ServerResponse

  constructor(original: ServerResponse) {
    this.response = {
      setHeader() {},
      writeHead() {},
      end() {},
      once: original.once.bind(original),
    } as unknown as ServerResponse
  }
}
