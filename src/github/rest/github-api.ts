import { ForgeError } from '../forge-error.ts'
import {
  AppCredential,
  type AppSigner,
  type Credential,
  type Installation,
  type InstallationToken,
} from './credential.ts'
import type { Endpoints } from './endpoints.ts'
import { type CallDescription, isObject, parseJson, toForgeError } from './github-errors.ts'
import type { GitHubThrottle } from './github-throttle.ts'
import { type HttpClient, type HttpResponse, NetworkError } from './http-client.ts'
import { serverTime } from './rate-limit.ts'

export interface ApiOptions {
  endpoints: Endpoints
  httpClient: HttpClient
  throttle: GitHubThrottle
  credential: Credential
  /** Milliseconds for one call. */
  callTimeoutMs: number
}

export interface ApiCall {
  method: 'GET' | 'POST' | 'PATCH' | 'DELETE'
  /** Below the API's address, parts encoded: `/orgs/acme`. */
  path: string
  /** Whose account it is about: an App has a token for each. */
  owner: string
  body?: Record<string, unknown>
  /** Completes "GitHub could not …". */
  action: string
  isCreation?: boolean
  signal: AbortSignal
}

/** An answer of the API, its JSON parsed; undefined where it is none. */
export interface ApiResponse extends HttpResponse {
  json: unknown
  description: CallDescription
}

/** The version that is sent with each request. Supported until 2028 at least: docs "API versions". */
export const API_VERSION = '2022-11-28'
export const USER_AGENT = 'shipcast'
const MAX_RESPONSE_BYTES = 4 * 1024 * 1024

/** GitHub's REST API: one request, any answer. What an answer means is the caller's. */
export class GitHubApi {
  private readonly options: ApiOptions

  constructor(options: ApiOptions) {
    this.options = options
  }

  get endpoints(): Endpoints {
    return this.options.endpoints
  }

  get credential(): Credential {
    return this.options.credential
  }

  /**
   * Rejects with `TRANSIENT` when no answer came (a write may have been done all the same), with `UNAUTHENTICATED`, with
   * `RATE_LIMITED`, or with the signal's reason.
   */
  async call(call: ApiCall): Promise<ApiResponse> {
    const { credential } = this.options
    for (let isFirst = true; ; isFirst = false) {
      const token = await credential.token(call.owner, call.signal)
      const answer = await this.send(call, `Bearer ${token}`)
      if (answer.status !== 401) return answer
      if (!isFirst || !credential.invalidate(token)) throw toForgeError(answer, answer.description)
    }
  }

  /** The same, for an answer of this status; any other is an error. */
  async expect(status: number, call: ApiCall): Promise<ApiResponse> {
    const answer = await this.call(call)
    if (answer.status !== status) throw toForgeError(answer, answer.description)
    return answer
  }

  /** The path of a URL below the API, for GraphQL, which is not below it. */
  async graphql(call: Omit<ApiCall, 'method' | 'path'>, isWrite: boolean): Promise<ApiResponse> {
    const token = await this.options.credential.token(call.owner, call.signal)
    return this.send({ ...call, method: 'POST', path: '' }, `Bearer ${token}`, {
      url: this.endpoints.graphql,
      kind: isWrite ? 'write' : 'read',
    })
  }

  /** What an App asks in its own name. */
  async findInstallation(owner: string, signer: AppSigner, signal: AbortSignal): Promise<Installation> {
    const what = `find the App's installation in ${owner}`
    for (const path of [
      `/orgs/${encodeURIComponent(owner)}/installation`,
      `/users/${encodeURIComponent(owner)}/installation`,
    ]) {
      const answer = await this.sendAsApp({ method: 'GET', path, owner, action: what, signal }, signer)
      if (answer.status === 200) return installationOf(answer)
      if (answer.status === 401) {
        throw new ForgeError(
          'UNAUTHENTICATED',
          'GitHub does not know the App, or its key. Check GITHUB_APP_ID and GITHUB_APP_PRIVATE_KEY_FILE, and that this machine’s clock is right; start Shipcast anew, then retry.',
          { status: 401 },
        )
      }
      if (answer.status !== 404) throw toForgeError(answer, answer.description)
    }
    throw new ForgeError(
      'FORBIDDEN',
      `The GitHub App is not installed in ${owner}, or there is no ${owner}. Install it there, on all repositories (${this.endpoints.web}/settings/apps), then retry.`,
      { status: 404 },
    )
  }

  async createInstallationToken(
    installation: Installation,
    signer: AppSigner,
    signal: AbortSignal,
  ): Promise<InstallationToken> {
    const path = `/app/installations/${installation.id}/access_tokens`
    const call: ApiCall = { method: 'POST', path, owner: '', action: 'get a token for the App', signal }
    // Not a write in the sense of GitHub's limits for content; but nothing that may be lost either.
    const answer = await this.sendAsApp(call, signer, { kind: 'read' })
    if (answer.status !== 201) throw toForgeError(answer, answer.description)
    const { token, expires_at: expiresAt } = isObject(answer.json) ? answer.json : {}
    if (typeof token !== 'string' || typeof expiresAt !== 'string') throw notGitHubError(answer)
    return { token, lifetimeMs: Date.parse(expiresAt) - serverTime(answer.headers) }
  }

  /** Once more where the refused token was dated by a clock that is far from GitHub's. */
  private async sendAsApp(
    call: ApiCall,
    signer: AppSigner,
    options: { kind?: 'read' } = {},
  ): Promise<ApiResponse> {
    const jwt = await signer.sign()
    const answer = await this.send(call, `Bearer ${jwt.value}`, options)
    if (answer.status !== 401 || !signer.adoptClock(jwt, answer.headers.date)) return answer
    const { value } = await signer.sign()
    return this.send(call, `Bearer ${value}`, options)
  }

  private async send(
    call: ApiCall,
    authorization: string,
    { url, kind }: { url?: string; kind?: 'read' | 'write' } = {},
  ): Promise<ApiResponse> {
    const {
      endpoints: addresses,
      httpClient: transport,
      throttle: queue,
      credential,
      callTimeoutMs,
    } = this.options
    const { method, path, body, signal, isCreation = false } = call
    const doing: CallDescription = {
      action: call.action,
      grantHint: settingsUrl(addresses, credential),
      redact: (text) => credential.redact(text),
    }
    const send = () =>
      transport.send({
        method,
        url: url ?? `${addresses.api}${path}`,
        headers: {
          accept: 'application/vnd.github+json',
          authorization,
          'user-agent': USER_AGENT,
          'x-github-api-version': API_VERSION,
          ...(body && { 'content-type': 'application/json' }),
        },
        body: body && JSON.stringify(body),
        signal,
        timeoutMs: callTimeoutMs,
        maxResponseBytes: MAX_RESPONSE_BYTES,
      })
    try {
      const answer = await queue.run(kind ?? (method === 'GET' ? 'read' : 'write'), signal, send, {
        isCreation,
      })
      return { ...answer, json: parseJson(answer.body), description: doing }
    } catch (error) {
      if (!(error instanceof NetworkError)) throw error
      throw new ForgeError(
        'TRANSIENT',
        `GitHub could not be asked to ${call.action}: ${credential.redact(error.message)}.`,
      )
    }
  }
}

/** Where a person grants what is missing. */
export function settingsUrl({ web }: Endpoints, credential: Credential): string {
  return credential instanceof AppCredential ? `${web}/settings/apps` : `${web}/settings/tokens`
}

/** Something answers with a good status that is not GitHub's API. */
export function notGitHubError({ url, status }: HttpResponse): ForgeError {
  return new ForgeError(
    'UNEXPECTED',
    `What answers at ${new URL(url).origin} is not GitHub's API, or one that Shipcast does not know. Check GITHUB_API_URL (for Enterprise Server it ends in /api/v3) and any proxy in between, then retry.`,
    { status },
  )
}

function installationOf(answer: ApiResponse): Installation {
  const {
    id,
    html_url: htmlUrl,
    repository_selection: selection,
    permissions,
  } = isObject(answer.json) ? answer.json : {}
  if (typeof id !== 'number' || typeof htmlUrl !== 'string') throw notGitHubError(answer)
  const granted = isObject(permissions) ? Object.entries(permissions) : []
  return {
    id,
    htmlUrl,
    repositorySelection: String(selection),
    permissions: Object.fromEntries(granted.map(([name, level]) => [name, String(level)])),
  }
}
