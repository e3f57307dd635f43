import { z } from 'zod'
import { ForgeError } from '../forge-error.ts'
import {
  AppCredential,
  type AppSigner,
  type Credential,
  type Installation,
  type InstallationToken,
} from './credential.ts'
import type { Endpoints } from './endpoints.ts'
import { type CallDescription, parseJson, toForgeError } from './github-errors.ts'
import type { GitHubThrottle } from './github-throttle.ts'
import { type HttpClient, type HttpResponse, NetworkError } from './http-client.ts'
import { serverTimeMs } from './rate-limit.ts'

/** Shared by all calls to one GitHub instance with one credential. */
export interface GitHubCallOptions {
  endpoints: Endpoints
  httpClient: HttpClient
  throttle: GitHubThrottle
  credential: Credential
  /** Milliseconds for one API call, or for git without progress. */
  callTimeoutMs: number
}

interface ApiCall {
  method: 'GET' | 'POST' | 'PATCH' | 'DELETE'
  /** Below the API's base URL, with encoded segments: `/orgs/acme`. */
  path: string
  /** The account concerned: an App has one token per account. */
  owner: string
  body?: Record<string, unknown>
  /** See `CallDescription`. */
  action: string
  /** `read` for GET and `write` otherwise, if absent. */
  kind?: 'read' | 'write'
  isCreation?: boolean
  signal: AbortSignal
}

type GraphqlCall = Omit<ApiCall, 'method' | 'path'>

/** Any response, with the call that it answers. */
export interface ApiResponse extends HttpResponse {
  description: CallDescription
}

/** Sent with each request. Supported at least until 2028: docs "API versions". */
const API_VERSION = '2022-11-28'
export const USER_AGENT = 'shipcast'
const MAX_RESPONSE_BYTES = 4 * 1024 * 1024

/** GitHub's REST and GraphQL APIs: one request, any response. Callers interpret the status. */
export class GitHubApi {
  private readonly options: GitHubCallOptions

  constructor(options: GitHubCallOptions) {
    this.options = options
  }

  get endpoints(): Endpoints {
    return this.options.endpoints
  }

  get credential(): Credential {
    return this.options.credential
  }

  /**
   * Rejects with `TRANSIENT` without a response (a write may have been applied anyway), with
   * `UNAUTHENTICATED`, with `RATE_LIMITED`, or with the signal's reason.
   */
  async call({ path, ...call }: ApiCall): Promise<ApiResponse> {
    const { credential } = this.options
    for (let isFirst = true; ; isFirst = false) {
      const token = await credential.token(call.owner, call.signal)
      const response = await this.send({ ...call, url: this.url(path) }, `Bearer ${token}`)
      if (response.status !== 401) return response
      if (!isFirst || !credential.invalidate(token)) throw toForgeError(response, response.description)
    }
  }

  /** Rejects unless the response has this status. */
  async expect(status: number, call: ApiCall): Promise<ApiResponse> {
    const response = await this.call(call)
    if (response.status !== status) throw toForgeError(response, response.description)
    return response
  }

  async graphql(call: GraphqlCall): Promise<ApiResponse> {
    const token = await this.options.credential.token(call.owner, call.signal)
    return this.send({ ...call, method: 'POST', url: this.endpoints.graphql }, `Bearer ${token}`)
  }

  async findInstallation(owner: string, signer: AppSigner, signal: AbortSignal): Promise<Installation> {
    const action = `find the App's installation in ${owner}`
    for (const path of [
      `/orgs/${encodeURIComponent(owner)}/installation`,
      `/users/${encodeURIComponent(owner)}/installation`,
    ]) {
      const response = await this.callAsApp({ method: 'GET', path, owner, action, signal }, signer)
      if (response.status === 200) return parseBody(response, InstallationBody)
      if (response.status === 401) {
        throw new ForgeError(
          'UNAUTHENTICATED',
          "GitHub does not recognize the App or its key. Check GITHUB_APP_ID, GITHUB_APP_PRIVATE_KEY_FILE and this machine's clock, restart Shipcast, then retry.",
          { status: 401 },
        )
      }
      if (response.status !== 404) throw toForgeError(response, response.description)
    }
    throw new ForgeError(
      'FORBIDDEN',
      `The GitHub App is not installed in ${owner}, or ${owner} does not exist. Install it there, on all repositories (${this.endpoints.web}/settings/apps), then retry.`,
      { status: 404 },
    )
  }

  async createInstallationToken(
    installation: Installation,
    signer: AppSigner,
    signal: AbortSignal,
  ): Promise<InstallationToken> {
    const path = `/app/installations/${installation.id}/access_tokens`
    const action = 'create a token for the App'
    // Does not count as a write: GitHub's limits for writes are about content.
    const call: ApiCall = { method: 'POST', path, owner: '', action, kind: 'read', signal }
    const response = await this.callAsApp(call, signer)
    if (response.status !== 201) throw toForgeError(response, response.description)
    const { token, expires_at } = parseBody(response, InstallationTokenBody)
    return { token, lifetimeMs: Date.parse(expires_at) - serverTimeMs(response.headers) }
  }

  /** Repeats a refused call once if the token was dated by a clock far from GitHub's. */
  private async callAsApp({ path, ...call }: ApiCall, signer: AppSigner): Promise<ApiResponse> {
    const request = { ...call, url: this.url(path) }
    const jwt = await signer.sign()
    const response = await this.send(request, `Bearer ${jwt.value}`)
    if (response.status !== 401 || !signer.adoptClock(jwt, response.headers.date)) return response
    const { value } = await signer.sign()
    return this.send(request, `Bearer ${value}`)
  }

  private async send(
    { method, url, body, action, kind, isCreation = false, signal }: Omit<ApiCall, 'path'> & { url: string },
    authorization: string,
  ): Promise<ApiResponse> {
    const { endpoints, httpClient, throttle, credential, callTimeoutMs } = this.options
    const description: CallDescription = {
      action,
      grantHint: settingsUrl(endpoints, credential),
      redact: (text) => credential.redact(text),
    }
    const send = () =>
      httpClient.send({
        method,
        url,
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
    const callKind = kind ?? (method === 'GET' ? 'read' : 'write')
    try {
      const response = await throttle.run(callKind, signal, send, { isCreation })
      return { ...response, description }
    } catch (error) {
      if (!(error instanceof NetworkError)) throw error
      throw new ForgeError(
        'TRANSIENT',
        `The request to GitHub to ${action} failed: ${credential.redact(error.message)}.`,
      )
    }
  }

  private url(path: string): string {
    return `${this.endpoints.api}${path}`
  }
}

/** The page where a person grants missing permissions. */
export function settingsUrl({ web }: Endpoints, credential: Credential): string {
  return credential instanceof AppCredential ? `${web}/settings/apps` : `${web}/settings/tokens`
}

/** GitHub's ids are numbers; ours are text. */
export const Id = z.union([z.number(), z.string().min(1)]).transform(String)

/** The body of a successful response, parsed by its schema. Throws `UNEXPECTED` for anything else. */
export function parseBody<Schema extends z.ZodType>(
  { url, status, body }: HttpResponse,
  schema: Schema,
): z.output<Schema> {
  const parsed = schema.safeParse(parseJson(body))
  if (parsed.success) return parsed.data
  const field = parsed.error.issues[0]?.path.join('.')
  throw new ForgeError(
    'UNEXPECTED',
    `The response from ${new URL(url).origin} is not GitHub's API or an unsupported version of it${field ? ` (the field ${field} is missing or malformed)` : ''}. Check GITHUB_API_URL (for Enterprise Server it ends in /api/v3) and any proxy in between, then retry.`,
    { status },
  )
}

const InstallationBody = z
  .object({
    id: z.number(),
    html_url: z.string(),
    repository_selection: z.string(),
    permissions: z.record(z.string(), z.string()),
  })
  .transform(({ id, html_url, repository_selection, permissions }): Installation => {
    return { id, htmlUrl: html_url, repositorySelection: repository_selection, permissions }
  })

const InstallationTokenBody = z.object({ token: z.string(), expires_at: z.iso.datetime({ offset: true }) })
