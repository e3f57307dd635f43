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
  /** Requests to GET it that are answered 404 yet. */
  hiddenRequestCount: number
}

export interface FakeResponse {
  status: number
  body?: unknown
  headers?: Record<string, string>
}

/**
 * What is done instead of the ordinary: `apply` does the ordinary and gives its answer; `null` cuts the connection;
 * undefined: the ordinary after all.
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
 * A GitHub that is strict where GitHub is, and fails where a test wants it to: in memory, with real git behind it. It
 * keeps what a create sends, compares names without case, asks for a credential, and checks each request by GitHub's
 * own description.
 */
export class FaultGitHub {
  readonly token = 'ghp_secretSecretSecretSecretSecret000001'
  readonly viewer = { login: 'octo-admin', id: 7 }
  /** Headers of every API answer: scopes, say. */
  readonly headers: Record<string, string> = {}
  readonly orgs = new Map<string, Record<string, unknown>>([['acme', { login: 'acme', id: 9 }]])
  readonly repositories = new Map<string, FakeRepository>()
  /** Former full name, lower case, to id. */
  readonly renamed = new Map<string, number>()
  /** `METHOD path` of every request, and those of the creates by name. */
  readonly requests: string[] = []
  /** What GitHub's description has against our requests. */
  readonly violations: string[] = []
  /** Answers whoever comes with a JSON web token, where there is an App. */
  appHandler: ((authorization: string, line: string) => FakeResponse) | undefined
  /** Answers GraphQL: the `data` of a document with these variables. */
  graphqlHandler: ((query: string, variables: Record<string, unknown>) => unknown) | undefined
  /** How far its clock, which every answer tells, is ahead of ours. */
  clockAheadMs = 0
  readonly backend: GitHttpBackend
  readonly url: string
  /** Behind the origin, as of Enterprise Server. */
  readonly basePath: string
  private readonly server: Server
  private readonly faults: { matches: RegExp; takeFault: Fault; isLasting: boolean }[] = []
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

  /** The next request of this kind meets this; each once, in order. */
  next(matches: RegExp, ...faults: Fault[]): void {
    for (const fault of faults) this.faults.push({ matches, takeFault: fault, isLasting: false })
  }

  /** Every request of this kind, from now on. */
  always(matches: RegExp, fault: Fault): void {
    this.faults.push({ matches, takeFault: fault, isLasting: true })
  }

  clearFaults(): void {
    this.faults.length = 0
  }

  /** As somebody else makes one. */
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
    // Before anything is awaited: of two creates at once, only one gets the name.
    this.repositories.set(`${owner}/${name}`.toLowerCase(), repository)
    await this.backend.create(owner, name)
    return repository
  }

  /** As its owner renames it: the old name leads to the new one. */
  async rename(from: string, to: string): Promise<void> {
    const repository = this.repositories.get(from.toLowerCase())
    if (!repository) throw new Error(`There is no ${from}.`)
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
    const git = GitHttpBackend.parse(url)
    const fault = this.fault(`${method} ${url}`)
    if (git) {
      if (fault === undefined) return this.handleGit(request, response, git)
      // A fault of git's that is to be applied lets the backend do it, and loses its answer.
      const answer = await fault(async () => {
        await this.handleGit(request, new DiscardedResponse(response).response, git)
        return { status: 200 }
      })
      return answer === undefined ? this.handleGit(request, response, git) : sendResponse(response, answer)
    }
    const parts: Buffer[] = []
    for await (const part of request) parts.push(part)
    const text = Buffer.concat(parts).toString()
    const path = url.startsWith(this.basePath) ? url.slice(this.basePath.length) : url
    const body: Record<string, unknown> = text === '' ? {} : JSON.parse(text)
    if (path === '/api/graphql' && this.graphqlHandler) {
      const { query, variables } = body as { query: string; variables: Record<string, unknown> }
      this.violations.push(...graphqlViolations(query, variables))
      return sendResponse(response, {
        status: 200,
        headers: this.headers,
        body: this.graphqlHandler(query, variables),
      })
    }
    const wanted = { method, path, body }
    this.violations.push(...requestViolations(method, path, text === '' ? undefined : body))
    if (!request.headers['x-github-api-version']) this.violations.push(`${method} ${path}: no version`)
    const { authorization = '' } = request.headers
    if (this.appHandler && authorization.split('.').length === 3) {
      return sendResponse(response, this.appHandler(authorization, `${method} ${path}`))
    }
    if (authorization !== `Bearer ${this.token}`) {
      return sendResponse(response, {
        status: 401,
        body: { message: authorization ? 'Bad credentials' : 'Requires authentication' },
      })
    }
    const apply = () => this.respond(wanted)
    const faulty = fault && (await fault(apply))
    const answer = faulty === undefined ? await apply() : faulty
    sendResponse(response, answer && { ...answer, headers: { ...this.headers, ...answer.headers } })
  }

  private fault(line: string): Fault | undefined {
    const at = this.faults.findIndex(({ matches }) => matches.test(line))
    const found = this.faults[at]
    if (found && !found.isLasting) this.faults.splice(at, 1)
    return found?.takeFault
  }

  private async handleGit(
    request: IncomingMessage,
    response: ServerResponse,
    { owner, name, rest }: { owner: string; name: string; rest: string },
  ): Promise<void> {
    const given = request.headers.authorization?.replace(/^Basic /, '') ?? ''
    if (Buffer.from(given, 'base64').toString() !== `x-access-token:${this.token}`) {
      return sendResponse(response, { status: 401, headers: { 'www-authenticate': 'Basic realm="GitHub"' } })
    }
    const key = `${owner}/${name}`.toLowerCase()
    if (!this.repositories.has(key)) {
      const to = [...this.repositories.values()].find(({ id }) => id === this.renamed.get(key))
      if (!to) return sendResponse(response, { status: 404, body: 'Repository not found.' })
      const { search } = new URL(request.url ?? '', this.origin)
      const location = `${this.origin}/${to.owner}/${to.name}.git/${rest}${search}`
      return sendResponse(response, { status: 301, headers: { location } })
    }
    await this.backend.handle(request, response)
  }

  private async respond({ method, path, body }: ApiRequest): Promise<FakeResponse> {
    if (method === 'GET' && path === '/user') return { status: 200, body: this.viewer }
    const org = /^\/orgs\/([^/]+)(\/repos)?$/.exec(path)
    if (org?.[1]) {
      const found = this.orgs.get(org[1].toLowerCase())
      if (!found) return NOT_FOUND
      if (method === 'GET') return { status: 200, body: found }
      if (method === 'POST') return this.createRepository(String(found.login), body)
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

function sendResponse(response: ServerResponse, answer: FakeResponse | null): void {
  if (answer === null) {
    response.destroy()
    return
  }
  const { status, body, headers } = answer
  const isText = typeof body === 'string'
  response.writeHead(status, {
    'content-type': isText ? 'text/plain' : 'application/json; charset=utf-8',
    'x-github-request-id': 'FA17:1:2:3',
    ...headers,
  })
  response.end(body === undefined ? '' : isText ? body : JSON.stringify(body))
}

/** Takes an answer and keeps it from the client. */
export class DiscardedResponse {
  readonly response: ServerResponse

  constructor(real: ServerResponse) {
    this.response = {
      setHeader() {},
      writeHead() {},
      end() {},
      once: real.once.bind(real),
    } as unknown as ServerResponse
  }
}
