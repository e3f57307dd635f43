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
  /** How long it is valid from now on, by GitHub's clock. */
  lifetimeMs: number
}

/** What the App itself signs a request with. */
export interface AppJwt {
  value: string
  /** GitHub's clock minus ours, as assumed when it was dated. */
  clockOffsetMs: number
}

export interface AppSigner {
  sign(): Promise<AppJwt>
  /**
   * To be called when GitHub has refused the token, with the time that it says in its answer. True: the clocks differ by
   * so much that this may be why; from now on, tokens are dated by GitHub's clock.
   */
  adoptClock(refused: AppJwt, githubDate: string | undefined): boolean
}

/** How an App asks for its installation and a token: requests of their own, signed by the App itself. */
export interface InstallationSource {
  find(owner: string, signer: AppSigner, signal: AbortSignal): Promise<Installation>
  createToken(installation: Installation, signer: AppSigner, signal: AbortSignal): Promise<InstallationToken>
}

/** A token is not used in its last minutes: the step that begins with it should end with it. Tokens last an hour. */
const RENEW_BEFORE_MS = 5 * 60_000
/** A smaller difference of the clocks is within what `sign` leaves room for. */
const MIN_CLOCK_DIFFERENCE_MS = 30_000
/** One for each organization that this process deploys to. */
const MAX_INSTALLATIONS = 1_000

/** Who we are for GitHub. */
export abstract class Credential {
  abstract readonly kind: CredentialSettings['kind']
  /** Names it in the database and in logs: a hash, from which nobody gets it back. */
  abstract readonly id: string

  /** The secret to act for this account with. */
  abstract token(owner: string, signal: AbortSignal): Promise<string>

  /** Forgets what GitHub refused. True: there may be a better one now. */
  abstract invalidate(token: string): boolean

  /** What must not be seen in any text. */
  protected abstract secrets(): Iterable<string>

  /** Text that came from outside, without anything of ours in it that should not be there. */
  redact(text: string): string {
    let clean = text
    for (const secret of this.secrets()) {
      for (const form of [secret, basicCredentials(secret), Buffer.from(secret).toString('base64')]) {
        clean = clean.replaceAll(form, '***')
      }
    }
    return clean
  }
}

/** What git takes as credentials over HTTP: any user name, and the token as password. */
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

/** A GitHub App: for each account a token of its own, fetched when there is none and renewed before it ends. */
export class AppCredential extends Credential implements AppSigner {
  readonly kind = 'app'
  readonly id: string
  private readonly appId: string
  private readonly privateKey: string
  private readonly source: InstallationSource
  /** `renewAtMs` is of the clock that nobody sets: `performance.now()`. */
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
    const known = this.tokens.get(key)
    if (known && performance.now() < known.renewAtMs) return known.token
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
    for (const [owner, known] of this.tokens) {
      if (known.token === token) return this.tokens.delete(owner)
    }
    return false
  }

  protected *secrets() {
    yield this.privateKey
    for (const { token } of this.tokens.values()) yield token
  }

  /**
   * Dated a minute back, and ends a minute before the ten that GitHub allows: docs "Generating a JSON Web Token for a
   * GitHub App". So the clocks may differ by a minute.
   */
  async sign(): Promise<AppJwt> {
    const clockOffsetMs = this.clockOffsetMs
    // The library itself goes half a minute back, and makes it last ten minutes from there.
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
