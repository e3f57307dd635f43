import { GitHubError } from '../github-error.ts'
import {
  AppCredential,
  type AppSigner,
  type Credential,
  type Installation,
  type InstallationToken,
} from './credential.ts'
import type { CredentialQueue } from './credential-queue.ts'
import type { Addresses } from './endpoints.ts'
import { type Doing, explain, isObject, parse } from './github-errors.ts'
import { serverTime } from './rate-limit.ts'
import { type HttpAnswer, NoAnswer, type Transport } from './transport.ts'

export interface ApiOptions {
  addresses: Addresses
  transport: Transport
  queue: CredentialQueue
  credential: Credential
  /** Milliseconds for one call. */
  callTimeoutMs: number
}

export interface Call {
  method: 'GET' | 'POST' | 'PATCH' | 'DELETE'
  /** Below the API's address, parts encoded: `/orgs/acme`. */
  path: string
  /** Whose account it is about: an App has a token for each. */
  owner: string
  body?: Record<string, unknown>
  /** Completes "GitHub could not …". */
  what: string
  isCreation?: boolean
  signal: AbortSignal
}

/** An answer of the API, its JSON parsed; undefined where it is none. */
export interface ApiAnswer extends HttpAnswer {
  json: unknown
  doing: Doing
}

/** The version that is sent with each request. Supported until 2028 at least: docs "API versions". */
export const API_VERSION = '2022-11-28'
export const USER_AGENT = 'shipcast'
const MOST_ANSWER_BYTES = 4 * 1024 * 1024

/** GitHub's REST API: one request, any answer. What an answer means is the caller's. */
export class GitHubApi {
  readonly #options: ApiOptions

  constructor(options: ApiOptions) {
    this.#options = options
  }

  get addresses(): Addresses {
    return this.#options.addresses
  }

  get credential(): Credential {
    return this.#options.credential
  }

  /**
   * Rejects with `TRANSIENT` when no answer came (a write may have been done all the same), with `UNAUTHENTICATED`, with
   * `RATE_LIMITED`, or with the signal's reason.
   */
  async call(call: Call): Promise<ApiAnswer> {
    const { credential } = this.#options
    for (let isFirst = true; ; isFirst = false) {
      const token = await credential.token(call.owner, call.signal)
      const answer = await this.#send(call, `Bearer ${token}`)
      if (answer.status !== 401) return answer
      if (!isFirst || !credential.refused(token)) throw explain(answer, answer.doing)
    }
  }

  /** The same, for an answer of this status; any other is an error. */
  async expect(status: number, call: Call): Promise<ApiAnswer> {
    const answer = await this.call(call)
    if (answer.status !== status) throw explain(answer, answer.doing)
    return answer
  }

  /** The path of a URL below the API, for GraphQL, which is not below it. */
  async graphql(call: Omit<Call, 'method' | 'path'>, isWrite: boolean): Promise<ApiAnswer> {
    const token = await this.#options.credential.token(call.owner, call.signal)
    return this.#send({ ...call, method: 'POST', path: '' }, `Bearer ${token}`, {
      url: this.addresses.graphql,
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
      const answer = await this.#sendAsApp({ method: 'GET', path, owner, what, signal }, signer)
      if (answer.status === 200) return installationOf(answer)
      if (answer.status === 401) {
        throw new GitHubError(
          'UNAUTHENTICATED',
          'GitHub does not know the App, or its key. Check GITHUB_APP_ID and GITHUB_APP_PRIVATE_KEY_FILE, and that this machine’s clock is right; start Shipcast anew, then retry.',
          { status: 401 },
        )
      }
      if (answer.status !== 404) throw explain(answer, answer.doing)
    }
    throw new GitHubError(
      'FORBIDDEN',
      `The GitHub App is not installed in ${owner}, or there is no ${owner}. Install it there, on all repositories (${this.addresses.web}/settings/apps), then retry.`,
      { status: 404 },
    )
  }

  async createInstallationToken(
    installation: Installation,
    signer: AppSigner,
    signal: AbortSignal,
  ): Promise<InstallationToken> {
    const path = `/app/installations/${installation.id}/access_tokens`
    const call: Call = { method: 'POST', path, owner: '', what: 'get a token for the App', signal }
    // Not a write in the sense of GitHub's limits for content; but nothing that may be lost either.
    const answer = await this.#sendAsApp(call, signer, { kind: 'read' })
    if (answer.status !== 201) throw explain(answer, answer.doing)
    const { token, expires_at: expiresAt } = isObject(answer.json) ? answer.json : {}
    if (typeof token !== 'string' || typeof expiresAt !== 'string') throw notGitHub(answer)
    return { token, lifetimeMs: Date.parse(expiresAt) - serverTime(answer.headers) }
  }

  /** Once more where the refused token was dated by a clock that is far from GitHub's. */
  async #sendAsApp(call: Call, signer: AppSigner, options: { kind?: 'read' } = {}): Promise<ApiAnswer> {
    const jwt = await signer.sign()
    const answer = await this.#send(call, `Bearer ${jwt.value}`, options)
    if (answer.status !== 401 || !signer.adoptClock(jwt, answer.headers.date)) return answer
    const { value } = await signer.sign()
    return this.#send(call, `Bearer ${value}`, options)
  }

  async #send(
    call: Call,
    authorization: string,
    { url, kind }: { url?: string; kind?: 'read' | 'write' } = {},
  ): Promise<ApiAnswer> {
    const { addresses, transport, queue, credential, callTimeoutMs } = this.#options
    const { method, path, body, signal, isCreation = false } = call
    const doing: Doing = {
      what: call.what,
      grantAt: grantPage(addresses, credential),
      scrub: (text) => credential.scrub(text),
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
        mostBytes: MOST_ANSWER_BYTES,
      })
    try {
      const answer = await queue.run(kind ?? (method === 'GET' ? 'read' : 'write'), signal, send, {
        isCreation,
      })
      return { ...answer, json: parse(answer.body), doing }
    } catch (error) {
      if (!(error instanceof NoAnswer)) throw error
      throw new GitHubError(
        'TRANSIENT',
        `GitHub could not be asked to ${call.what}: ${credential.scrub(error.message)}.`,
      )
    }
  }
}

/** Where a person grants what is missing. */
export function grantPage({ web }: Addresses, credential: Credential): string {
  return credential instanceof AppCredential ? `${web}/settings/apps` : `${web}/settings/tokens`
}

/** Something answers with a good status that is not GitHub's API. */
export function notGitHub({ url, status }: HttpAnswer): GitHubError {
  return new GitHubError(
    'UNEXPECTED',
    `What answers at ${new URL(url).origin} is not GitHub's API, or one that Shipcast does not know. Check GITHUB_API_URL (for Enterprise Server it ends in /api/v3) and any proxy in between, then retry.`,
    { status },
  )
}

function installationOf(answer: ApiAnswer): Installation {
  const {
    id,
    html_url: htmlUrl,
    repository_selection: selection,
    permissions,
  } = isObject(answer.json) ? answer.json : {}
  if (typeof id !== 'number' || typeof htmlUrl !== 'string') throw notGitHub(answer)
  const granted = isObject(permissions) ? Object.entries(permissions) : []
  return {
    id,
    htmlUrl,
    repositorySelection: String(selection),
    permissions: Object.fromEntries(granted.map(([name, level]) => [name, String(level)])),
  }
}
