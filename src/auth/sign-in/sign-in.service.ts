import { Injectable } from '@nestjs/common'
import { PubSubEngine } from 'graphql-subscriptions'
import * as oidc from 'openid-client'
import { Config } from '../../config/config.ts'
import type { Grant } from '../../config/grants.ts'
import { Database } from '../../database/database.ts'
import { appendAuditEntry } from '../audit-log.ts'
import { ACCESS_TOPIC, CredentialStore } from '../credentials/credential-store.ts'
import type { Principal } from '../principal.ts'
import { RateLimiter } from '../rate-limiter.ts'
import { GitHubSignIn } from './github-sign-in.ts'
import { OidcSignIn } from './oidc-sign-in.ts'
import { type Person, SignInError, type SignInProvider } from './sign-in-provider.ts'
import { SignInStore } from './sign-in-store.ts'

export const UNKNOWN_PROVIDER =
  'This server does not offer that sign-in provider. Choose one of those on the page.'
const MAX_SWEPT_SESSIONS = 100
/** Token names cannot contain parentheses. */
const RESERVED_NAME = /^local$|\((?:person|service|command)\)$/i

/** Signs people in with a provider, and out. */
@Injectable()
export class SignInService {
  private readonly providers: ReadonlyMap<string, SignInProvider>

  constructor(
    private readonly config: Config,
    private readonly database: Database,
    private readonly pendingSignIns: SignInStore,
    private readonly credentials: CredentialStore,
    private readonly rateLimiter: RateLimiter,
    private readonly pubSub: PubSubEngine,
  ) {
    const { oidc, github } = config.access
    this.providers = new Map<string, SignInProvider>([
      ...(oidc ? [['oidc', new OidcSignIn(oidc)] as const] : []),
      ...(github ? [['github', new GitHubSignIn(github)] as const] : []),
    ])
  }

  /** Undefined: the provider is not configured. @throws SignInError, RateLimitedError */
  async startSignIn(
    provider: string,
    from: { address: string; returnTo: string; session: string | undefined },
  ): Promise<{ url: URL; state: string; browserSecret: string } | undefined> {
    const signInProvider = this.providers.get(provider)
    if (!signInProvider) return undefined
    this.rateLimiter.countSignIn(from.address)
    const checks = {
      state: oidc.randomState(),
      nonce: oidc.randomNonce(),
      codeVerifier: oidc.randomPKCECodeVerifier(),
    }
    const url = await signInProvider.authorizationUrl(
      checks,
      `${this.config.publicUrl}/auth/${provider}/callback`,
    )
    const previous = from.session === undefined ? undefined : await this.credentials.find(from.session)
    const browserSecret = await this.pendingSignIns.create(provider, {
      checks,
      returnTo: from.returnTo,
      sessionId: previous?.id ?? null,
    })
    return { url, state: checks.state, browserSecret }
  }

  /** `path`: the path and query of the callback URL. @throws SignInError, RateLimitedError */
  async completeSignIn(
    provider: string,
    from: { address: string; path: string; browserSecret: string },
  ): Promise<{ secret: string; expiresAt: Date; returnTo: string }> {
    const callbackUrl = new URL(from.path, this.config.publicUrl)
    const state = callbackUrl.searchParams.get('state') ?? ''
    const signInProvider = this.providers.get(provider)
    if (!signInProvider) throw new SignInError(UNKNOWN_PROVIDER)
    const pending = await this.pendingSignIns.consume(provider, state, from.browserSecret)
    if (!pending) {
      // Anyone can send such requests.
      const isAudited = this.rateLimiter.recordFailedAuth(from.address)
      if (isAudited) await this.audit(null, provider, from.address, 'UNAUTHENTICATED')
      throw new SignInError(
        'This sign-in was already completed, has expired, or was started in another browser. Sign in again.',
      )
    }
    const person = await signInProvider
      .completeSignIn(pending.checks, callbackUrl)
      .catch(async (error: unknown) => {
        await this.audit(null, provider, from.address, 'UNAUTHENTICATED')
        throw error
      })
    const session = await this.createSession(person, provider, from.address, pending.sessionId)
    return { ...session, returnTo: pending.returnTo }
  }

  async signOut({ credential, subject, address }: Principal): Promise<void> {
    if (credential?.kind !== 'session') return
    await this.credentials.revokeSession(credential.id)
    await this.pubSub.publish(ACCESS_TOPIC, {})
    await appendAuditEntry(this.database, {
      action: 'SIGN_OUT',
      subject,
      address,
      target: null,
      result: 'OK',
    })
  }

  private async createSession(
    person: Person,
    provider: string,
    address: string,
    previousSessionId: string | null,
  ): Promise<{ secret: string; expiresAt: Date }> {
    const subject = { id: `user:${person.id}`, name: await this.subjectNameOf(person) }
    const grants = this.grantsOf(person, provider)
    // The person's sessions in other browsers get the current grants, too.
    if (grants.length > 0) await this.credentials.updateSessionGrants(subject.id, grants)
    else await this.credentials.revokeSessionsOfSubject(subject.id)
    if (previousSessionId) {
      await this.credentials.revokeSessionOfOtherSubject(previousSessionId, subject.id)
    }
    await this.pubSub.publish(ACCESS_TOPIC, {})
    await this.audit(subject, provider, address, grants.length > 0 ? 'OK' : 'FORBIDDEN')
    if (grants.length === 0) {
      throw new SignInError(
        `You are ${subject.name}, but none of your groups has a role here. Ask the operator of Shipcast to add one of them to ACCESS_ROLES.`,
      )
    }
    await this.credentials.deleteEndedSessions(MAX_SWEPT_SESSIONS)
    return this.credentials.create({
      kind: 'session',
      subjectId: subject.id,
      name: subject.name,
      grants,
      lifetimeMs: this.config.access.sessionMs,
    })
  }

  /** Appends "(person)" to a name that a service has, to `local`, and to names that end in such a suffix. */
  private async subjectNameOf({ name }: Person): Promise<string> {
    // Compatible forms of the same letters look alike, for example fullwidth ones.
    const plain = name.normalize('NFKC')
    const isReserved = RESERVED_NAME.test(plain) || (await this.credentials.isTokenName(plain))
    return isReserved ? `${name} (person)` : name
  }

  /** Groups are qualified by provider: at another provider, anyone may have a group with that name. */
  private grantsOf({ groups }: Person, provider: string): Grant[] {
    const { grantsByGroup } = this.config.access
    // Only normalized names: the Kelvin sign is not a "K", although its lower case is "k".
    const normal = groups.filter((group) => group === group.normalize('NFC'))
    const names = new Set(normal.map((group) => group.toLowerCase()))
    return [...names].sort().flatMap((group) => grantsByGroup.get(`${provider}:${group}`) ?? [])
  }

  private async audit(
    subject: { id: string; name: string } | null,
    provider: string,
    address: string,
    result: string,
  ): Promise<void> {
    await appendAuditEntry(this.database, { action: 'SIGN_IN', subject, address, target: provider, result })
  }
}
