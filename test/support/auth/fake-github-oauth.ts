import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'

export interface GitHubUser {
  id: number
  login: string
  organizations: readonly string[]
  /** As `acme/platform`. */
  teams: readonly string[]
}

const CODE_TTL_MS = 10 * 60_000

/**
 * GitHub's OAuth for apps and its REST calls, as strict as docs.github.com describes them ("Authorizing OAuth
 * apps", "Troubleshooting OAuth app access token request errors", "Getting started with the REST API").
 * `emulate`, which replaces GitHub in other tests, ignores PKCE and lacks `/user/teams`.
 */
export class FakeGitHubOAuth {
  readonly clientId = 'Ov23liTests'
  readonly clientSecret = 'a secret of the tests'
  /** The person who signs in; null: a person who cancels. */
  person: GitHubUser | null = null
  /** Replaces the status of every response of the REST API. */
  apiStatus: number | undefined
  readonly apiRequests: string[] = []
  private readonly codes = new Map<string, { scope: string; challenge: string; expiresAt: number }>()
  private readonly tokens = new Map<string, { scopes: string[]; person: GitHubUser }>()

  private constructor(
    private readonly server: Server,
    private readonly redirectUrl: string,
  ) {}

  static async start(redirectUrl: string): Promise<FakeGitHubOAuth> {
    const server = createServer()
    const github = new FakeGitHubOAuth(server, redirectUrl)
    server.on('request', (request: IncomingMessage, response: ServerResponse) => {
      github.handle(request, response).catch((error) => response.destroy(error))
    })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    return github
  }

  get url(): string {
    return `http://127.0.0.1:${(this.server.address() as AddressInfo).port}`
  }

  async close(): Promise<void> {
    this.server.closeAllConnections()
    this.server.close()
    await once(this.server, 'close')
  }

  private async handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '/', this.url)
    if (url.pathname === '/login/oauth/authorize') {
      const redirect = this.authorize(url.searchParams)
      if (typeof redirect === 'number') response.writeHead(redirect).end()
      else response.writeHead(302, { location: redirect.href }).end()
    } else if (url.pathname === '/login/oauth/access_token' && request.method === 'POST') {
      const body = new URLSearchParams(Buffer.concat(await request.toArray()).toString())
      sendTokenResponse(request, response, this.accessToken(body))
    } else {
      const [status, body] = this.api(request, url)
      response.writeHead(status, { 'content-type': 'application/json; charset=utf-8' })
      response.end(JSON.stringify(body))
    }
  }

  /** The URL that the browser is redirected to, or the status of an error page. */
  private authorize(query: URLSearchParams): URL | number {
    const challenge = query.get('code_challenge') ?? ''
    const isPkce = query.get('code_challenge_method') === 'S256' && /^[\w-]{43}$/.test(challenge)
    const redirectUrl = query.get('redirect_uri')
    if (query.get('client_id') !== this.clientId) return 404
    if (redirectUrl !== this.redirectUrl || !isPkce) return 400
    const back = new URL(redirectUrl)
    back.searchParams.set('state', query.get('state') ?? '')
    if (this.person) {
      const code = randomBytes(10).toString('hex')
      this.codes.set(code, {
        scope: query.get('scope') ?? '',
        challenge,
        expiresAt: Date.now() + CODE_TTL_MS,
      })
      back.searchParams.set('code', code)
    } else {
      back.searchParams.set('error', 'access_denied')
      back.searchParams.set('error_description', 'The user has denied your application access.')
    }
    return back
  }

  private accessToken(body: URLSearchParams): Record<string, string> {
    if (body.get('client_id') !== this.clientId || body.get('client_secret') !== this.clientSecret) {
      return { error: 'incorrect_client_credentials', error_description: 'The client_id is incorrect.' }
    }
    if ((body.get('redirect_uri') ?? this.redirectUrl) !== this.redirectUrl) {
      return { error: 'redirect_uri_mismatch', error_description: 'The redirect_uri must match.' }
    }
    const code = body.get('code') ?? ''
    const issued = this.codes.get(code)
    this.codes.delete(code)
    const challenge = createHash('sha256')
      .update(body.get('code_verifier') ?? '')
      .digest('base64url')
    if (!issued || issued.expiresAt < Date.now() || issued.challenge !== challenge || !this.person) {
      return { error: 'bad_verification_code', error_description: 'The code passed is incorrect or expired.' }
    }
    const token = `gho_${randomBytes(18).toString('hex')}`
    const scopes = issued.scope.split(/[ ,]+/)
    this.tokens.set(token, { scopes, person: this.person })
    return { access_token: token, token_type: 'bearer', scope: scopes.join(',') }
  }

  private api({ headers, method }: IncomingMessage, url: URL): [status: number, body: unknown] {
    const path = url.pathname.replace('/api/v3', '')
    this.apiRequests.push(`${method} ${path}${url.search}`)
    if (!headers['user-agent']) return [403, { message: 'Request forbidden by administrative rules.' }]
    const access = this.tokens.get(/^(?:Bearer|token) (.+)$/.exec(headers.authorization ?? '')?.[1] ?? '')
    if (!access) return [401, { message: 'Bad credentials' }]
    if (this.apiStatus !== undefined) return [this.apiStatus, { message: 'Not now' }]
    const { person, scopes } = access
    if (path === '/user') return [200, { id: person.id, login: person.login }]
    const lists: Record<string, unknown[]> = {
      '/user/orgs': person.organizations.map((login) => ({ login })),
      '/user/teams': person.teams.map((name) => {
        const [login, slug] = name.split('/')
        return { slug, name: slug?.toUpperCase(), organization: { login } }
      }),
    }
    const list = lists[path]
    if (!list) return [404, { message: 'Not Found' }]
    if (!scopes.includes('read:org')) return [403, { message: 'You need at least read:org scope.' }]
    const perPage = Math.min(100, Number(url.searchParams.get('per_page') ?? 30))
    const page = Number(url.searchParams.get('page') ?? 1)
    return [200, list.slice((page - 1) * perPage, page * perPage)]
  }
}

/** Errors, too, have status 200. The response is JSON only if the client accepts it. */
function sendTokenResponse(
  request: IncomingMessage,
  response: ServerResponse,
  body: Record<string, string>,
): void {
  const wantsJson = request.headers.accept === 'application/json'
  const contentType = wantsJson ? 'application/json' : 'application/x-www-form-urlencoded'
  response.writeHead(200, { 'content-type': `${contentType}; charset=utf-8` })
  response.end(wantsJson ? JSON.stringify(body) : new URLSearchParams(body).toString())
}
