import { createHash } from 'node:crypto'
import githubAppJwt from 'universal-github-app-jwt'

/** As configured. Never logged, never stored. */
export type CredentialSettings =
  | { kind: 'token'; token: string }
  | { kind: 'app'; appId: string; privateKey: string }

/** An installation of the App on one account: GET /orgs/{org}/installation. */
export interface Installation {
  id: number
  /** The page where its permissions are shown and granted. */
  htmlUrl: string
  /** `all` or `selected`. */
  repositorySelection: string
  permissions: Readonly<Record<string, string>>
}

export interface InstallationToken {
  token: string
  /** Milliseconds from now until it expires, by GitHub's clock. */
  lifetimeMs: number
}

/** The token by which the App itself authenticates. */
interface AppJwt {
  value: string
  /** GitHub's clock minus ours, as assumed when the token was dated. */
  clockOffsetMs: number
}

export interface AppSigner {
  sign(): Promise<AppJwt>
  /**
   * To be called when GitHub refuses a token, with the `date` of the response. Returns true if the clocks
   * differ enough to explain the refusal; later tokens are then dated by GitHub's clock.
   */
  adoptClock(refused: AppJwt, githubDate: string | undefined): boolean
}

/** Requests that the App signs itself, to find its installation and to get a token. */
interface InstallationSource {
  find(owner: string, signer: AppSigner, signal: AbortSignal): Promise<Installation>
  createToken(installation: Installation, signer: AppSigner, signal: AbortSignal): Promise<InstallationToken>
}

/**
 * Tokens last an hour. One in its last minutes is not used: a token should outlive the
 * step that starts with it.
 */
const RENEW_BEFORE_MS = 5 * 60_000
/** The margins in `sign` cover a smaller difference between the clocks. */
const MIN_CLOCK_DIFFERENCE_MS = 30_000
/** One per organization that this process deploys to. */
const MAX_INSTALLATIONS = 1_000

/** Shipcast's identity on GitHub. */
export abstract class Credential {
  abstract readonly kind: CredentialSettings['kind']
  /** Identifies it in the database and in logs: a hash that does not reveal it. */
  abstract readonly id: string

  /** The token to act on this account with. */
  abstract token(owner: string, signal: AbortSignal): Promise<string>

  /** Forgets a token that GitHub refused. Returns true if the next one may differ. */
  abstract invalidate(token: string): boolean

  /** Everything that `redact` removes. */
  protected abstract secrets(): Iterable<string>

  /** Removes secrets from text that came from outside. */
  redact(text: string): string {
    let redacted = text
    for (const secret of this.secrets()) {
      for (const form of [secret, basicCredentials(secret), Buffer.from(secret).toString('base64')]) {
        redacted = redacted.replaceAll(form, '***')
      }
    }
    return redacted
  }
}

/** Credentials for git over HTTP: any user name, with the token as the password. */
export function basicCredentials(token: string): string {
  return Buffer.from(`x-access-token:${token}`).toString('base64')
}

export class TokenCredential extends Credential {
  readonly kind = 'token'
  readonly id: string
  private readonly secret: string

  constructor(token: string, apiUrl: string) {
    super()
    this.secret = token
    this.id = credentialId('token', apiUrl, token)
  }

  async token(): Promise<string> {
    return this.secret
  }

  invalidate(): boolean {
    return false
  }

  protected *secrets() {
    yield this.secret
  }
}

/** A GitHub App: one token per account, fetched on demand and renewed before it expires. */
export class AppCredential extends Credential implements AppSigner {
  readonly kind = 'app'
  readonly id: string
  private readonly appId: string
  private readonly privateKey: string
  private readonly source: InstallationSource
  /** `renewAtMs` is on the monotonic clock, `performance.now()`. */
  private readonly tokens = new Map<string, { token: string; renewAtMs: number }>()
  private clockOffsetMs = 0

  constructor(
    { appId, privateKey }: { appId: string; privateKey: string },
    apiUrl: string,
    source: InstallationSource,
  ) {
    super()
    this.appId = appId
    this.privateKey = privateKey
    this.source = source
    this.id = credentialId('app', apiUrl, appId)
  }

  async installation(owner: string, signal: AbortSignal): Promise<Installation> {
    return this.source.find(owner, this, signal)
  }

  async token(owner: string, signal: AbortSignal): Promise<string> {
    const key = owner.toLowerCase()
    const cached = this.tokens.get(key)
    if (cached && performance.now() < cached.renewAtMs) return cached.token
    const installation = await this.source.find(owner, this, signal)
    const { token, lifetimeMs } = await this.source.createToken(installation, this, signal)
    this.tokens.delete(key)
    if (this.tokens.size >= MAX_INSTALLATIONS) {
      const [oldest = key] = this.tokens.keys()
      this.tokens.delete(oldest)
    }
    this.tokens.set(key, { token, renewAtMs: performance.now() + lifetimeMs - RENEW_BEFORE_MS })
    return token
  }

  invalidate(token: string): boolean {
    for (const [owner, cached] of this.tokens) {
      if (cached.token === token) return this.tokens.delete(owner)
    }
    return false
  }

  protected *secrets() {
    yield this.privateKey
    for (const { token } of this.tokens.values()) yield token
  }

  /**
   * Dates the token a minute back, with an expiry a minute before the ten that GitHub allows (docs
   * "Generating a JSON Web Token for a GitHub App"), so that the clocks may differ by a minute.
   */
  async sign(): Promise<AppJwt> {
    const { clockOffsetMs } = this
    // The library itself subtracts half a minute, and sets the expiry ten minutes after that.
    const now = Math.floor((Date.now() + clockOffsetMs) / 1_000) - 30
    const { token } = await githubAppJwt<string>({ id: this.appId, privateKey: this.privateKey, now })
    return { value: token, clockOffsetMs }
  }

  adoptClock(refused: AppJwt, githubDate: string | undefined): boolean {
    const offsetMs = Date.parse(githubDate ?? '') - Date.now()
    if (!(Math.abs(offsetMs - refused.clockOffsetMs) >= MIN_CLOCK_DIFFERENCE_MS)) return false
    this.clockOffsetMs = offsetMs
    return true
  }
}

function credentialId(...parts: string[]): string {
  return createHash('sha256')
    .update(`shipcast\0${parts.join('\0')}`)
    .digest('hex')
    .slice(0, 32)
}
