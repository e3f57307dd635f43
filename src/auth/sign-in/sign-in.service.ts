import { Injectable } from '@nestjs/common'
import { PubSubEngine } from 'graphql-subscriptions'
import * as oidc from 'openid-client'
import { Config } from '../../config/config.ts'
import type { Grant } from '../../config/grants.ts'
import { Database } from '../../database/database.ts'
import { appendAuditEntry } from '../audit-log.ts'
import { ACCESS_TOPIC, CredentialStore } from '../credentials/credential-store.ts'
import { RateLimiter } from '../rate-limiter.ts'
import type { Principal } from '../request-context.ts'
import { GitHubSignIn } from './github-sign-in.ts'
import { OidcSignIn } from './oidc-sign-in.ts'
import { type Person, SignInError, type SignInProvider } from './sign-in-provider.ts'
import { SignInStore } from './sign-in-store.ts'

const MAX_SWEPT_SESSIONS = 100
/** No token can have one with brackets. */
const RESERVED_NAME = /^local$|\((?:person|service|command)\)$/i

/** How people come in and go: to a provider and back, with a session of ours at the end. */
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

  /** Undefined: there is no such provider. @throws SignInFailed, RateLimited */
  async startSignIn(
    provider: string,
    from: { address: string; returnTo: string; session: string | undefined },
  ): Promise<{ url: URL; state: string; browserSecret: string } | undefined> {
    const known = this.providers.get(provider)
    if (!known) return undefined
    this.rateLimiter.countSignIn(from.address)
    const checks = {
      state: oidc.randomState(),
      nonce: oidc.randomNonce(),
      codeVerifier: oidc.randomPKCECodeVerifier(),
    }
    const url = await known.authorizationUrl(checks, `${this.config.publicUrl}/auth/${provider}/callback`)
    const before = from.session === undefined ? undefined : await this.credentials.find(from.session)
    const browserSecret = await this.pendingSignIns.create(provider, {
      checks,
      returnTo: from.returnTo,
      sessionId: before?.id ?? null,
    })
    return { url, state: checks.state, browserSecret }
  }

  /** `path`: of the address that the browser has come back to, with its query. @throws SignInFailed, RateLimited */
  async completeSignIn(
    provider: string,
    from: { address: string; path: string; browserSecret: string },
  ): Promise<{ secret: string; expiresAt: Date; returnTo: string }> {
    const returned = new URL(from.path, this.config.publicUrl)
    const state = returned.searchParams.get('state') ?? ''
    const known = this.providers.get(provider)
    if (!known) throw new SignInError('There is no such way to sign in here.')
    const begun = await this.pendingSignIns.consume(provider, state, from.browserSecret)
    if (!begun) {
      // Anybody can send these.
      const isNoted = this.rateLimiter.recordFailedAuth(from.address)
      if (isNoted) await this.audit(null, provider, from.address, 'UNAUTHENTICATED')
      throw new SignInError(
        'This sign-in has been used, has expired, or began in another browser. Begin again.',
      )
    }
    const person = await known.completeSignIn(begun.checks, returned).catch(async (error: unknown) => {
      await this.audit(null, provider, from.address, 'UNAUTHENTICATED')
      throw error
    })
    const session = await this.createSession(person, provider, from.address, begun.sessionId)
    return { ...session, returnTo: begun.returnTo }
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
    sessionBefore: string | null,
  ): Promise<{ secret: string; expiresAt: Date }> {
    const subject = { id: `user:${person.id}`, name: await this.subjectNameOf(person) }
    const grants = this.grantsOf(person, provider)
    // What has changed since they last came changes in their other browsers, too.
    if (grants.length > 0) await this.credentials.updateSessionGrants(subject.id, grants)
    else await this.credentials.revokeSessionsOfSubject(subject.id)
    if (sessionBefore) await this.credentials.revokeSessionOfOtherSubject(sessionBefore, subject.id)
    await this.pubSub.publish(ACCESS_TOPIC, {})
    await this.audit(subject, provider, address, grants.length > 0 ? 'OK' : 'FORBIDDEN')
    if (grants.length === 0) {
      throw new SignInError(
        `You are ${subject.name}, and nothing says what you may do here. Ask whoever runs Shipcast to add one of your groups to ACCESS_ROLES.`,
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

  /** A person who goes by the name of a service, of `local`, or by what we add to names, is marked. */
  private async subjectNameOf({ name }: Person): Promise<string> {
    // Other forms of the same letters look alike: fullwidth ones, for example.
    const plain = name.normalize('NFKC')
    const isOurs = RESERVED_NAME.test(plain) || (await this.credentials.isTokenName(plain))
    return isOurs ? `${name} (person)` : name
  }

  /** A group is its provider's own: elsewhere anybody may have one of that name. */
  private grantsOf({ groups }: Person, provider: string): Grant[] {
    const { grantsByGroup: roles } = this.config.access
    // Only as Unicode normalises it: the Kelvin sign is no "k", though it becomes one in small letters.
    const normal = groups.filter((group) => group === group.normalize('NFC'))
    const own = new Set(normal.map((group) => group.toLowerCase()))
    return [...own].sort().flatMap((group) => roles.get(`${provider}:${group}`) ?? [])
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
