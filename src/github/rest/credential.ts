import { createHash } from 'node:crypto'
import githubAppJwt from 'universal-github-app-jwt'

/** As configured. Never logged, never stored. */
export type CredentialSettings =
  | { kind: 'token'; token: string }
  | { kind: 'app'; appId: string; privateKey: string }

/** A secret for one request, and which header it makes. */
export interface Secret {
  value: string
}

/** An installation of the App on one account: GET /orgs/{org}/installation. */
export interface Installation {
  id: number
  /** Where its permissions are seen and granted. */
  htmlUrl: string
  repositorySelection: string
  permissions: Readonly<Record<string, string>>
}

export interface InstallationToken {
  token: string
  expiresAt: Date
}

/** How an App asks for its installation and a token: requests of their own, signed by the App itself. */
export interface InstallationSource {
  find(owner: string, jwt: string, signal: AbortSignal): Promise<Installation>
  createToken(installation: Installation, jwt: string, signal: AbortSignal): Promise<InstallationToken>
}

/** A token is not used in its last minutes: the step that begins with it should end with it. Tokens last an hour. */
const RENEW_BEFORE_MS = 5 * 60_000
/** One for each organization that this process deploys to. */
const MOST_INSTALLATIONS = 1_000

/** Who we are for GitHub. */
export abstract class Credential {
  abstract readonly kind: CredentialSettings['kind']
  /** Names it in the database and in logs: a hash, from which nobody gets it back. */
  abstract readonly id: string

  /** The secret to act for this account with. */
  abstract token(owner: string, signal: AbortSignal): Promise<string>

  /** Forgets what GitHub refused. True: there may be a better one now. */
  abstract refused(token: string): boolean

  /** What must not be seen in any text. */
  protected abstract secrets(): Iterable<string>

  /** Text that came from outside, without anything of ours in it that should not be there. */
  scrub(text: string): string {
    let clean = text
    for (const secret of this.secrets()) {
      for (const form of [secret, basic(secret), Buffer.from(secret).toString('base64')]) {
        clean = clean.replaceAll(form, '***')
      }
    }
    return clean
  }
}

/** What git takes as credentials over HTTP: any user name, and the token as password. */
export function basic(token: string): string {
  return Buffer.from(`x-access-token:${token}`).toString('base64')
}

export class TokenCredential extends Credential {
  readonly kind = 'token'
  readonly id: string
  readonly #token: string

  constructor(token: string, apiUrl: string) {
    super()
    this.#token = token
    this.id = credentialId('token', apiUrl, token)
  }

  async token(): Promise<string> {
    return this.#token
  }

  refused(): boolean {
    return false
  }

  protected *secrets() {
    yield this.#token
  }
}

/** A GitHub App: for each account a token of its own, fetched when there is none and renewed before it ends. */
export class AppCredential extends Credential {
  readonly kind = 'app'
  readonly id: string
  readonly #appId: string
  readonly #privateKey: string
  readonly #source: InstallationSource
  readonly #tokens = new Map<string, InstallationToken>()

  constructor(
    { appId, privateKey }: { appId: string; privateKey: string },
    apiUrl: string,
    source: InstallationSource,
  ) {
    super()
    this.#appId = appId
    this.#privateKey = privateKey
    this.#source = source
    this.id = credentialId('app', apiUrl, appId)
  }

  async installation(owner: string, signal: AbortSignal): Promise<Installation> {
    return this.#source.find(owner, await this.#jwt(), signal)
  }

  async token(owner: string, signal: AbortSignal): Promise<string> {
    const key = owner.toLowerCase()
    const known = this.#tokens.get(key)
    if (known && known.expiresAt.getTime() - Date.now() > RENEW_BEFORE_MS) return known.token
    const jwt = await this.#jwt()
    const installation = await this.#source.find(owner, jwt, signal)
    const fresh = await this.#source.createToken(installation, jwt, signal)
    this.#tokens.delete(key)
    if (this.#tokens.size >= MOST_INSTALLATIONS) {
      const [oldest = key] = this.#tokens.keys()
      this.#tokens.delete(oldest)
    }
    this.#tokens.set(key, fresh)
    return fresh.token
  }

  refused(token: string): boolean {
    for (const [owner, known] of this.#tokens) {
      if (known.token === token) return this.#tokens.delete(owner)
    }
    return false
  }

  protected *secrets() {
    yield this.#privateKey
    for (const { token } of this.#tokens.values()) yield token
  }

  /** Lasts ten minutes, dated half a minute back for clocks that differ. */
  async #jwt(): Promise<string> {
    const { token } = await githubAppJwt<string>({ id: this.#appId, privateKey: this.#privateKey })
    return token
  }
}

function credentialId(...parts: string[]): string {
  return createHash('sha256')
    .update(`shipcast\0${parts.join('\0')}`)
    .digest('hex')
    .slice(0, 32)
}
