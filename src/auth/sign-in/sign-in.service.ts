import { Injectable } from '@nestjs/common'
import { PubSubEngine } from 'graphql-subscriptions'
import * as oidc from 'openid-client'
import { type AccessSettings, Config } from '../../config/config.ts'
import { Database } from '../../database/database.ts'
import { appendAudit } from '../audit-log.ts'
import { ACCESS_TOPIC, CredentialStore } from '../credentials/credential-store.ts'
import type { Sender } from '../http-access.ts'
import { Limits } from '../limits.ts'
import type { Grant } from '../rights.ts'
import { GitHubSignIn } from './github-sign-in.ts'
import { OidcSignIn } from './oidc-sign-in.ts'
import { type Person, SignInFailed, type SignInProvider } from './sign-in-provider.ts'
import { SignInStore } from './sign-in-store.ts'

const SWEPT_SESSIONS = 100
/** No token can have one with brackets. */
const RESERVED_NAME = /^local$|\((?:person|service|command)\)$/i

/** How people come in and go: to a provider and back, with a session of ours at the end. */
@Injectable()
export class SignInService {
  private readonly providers: ReadonlyMap<string, SignInProvider>
  private readonly begun: SignInStore
  private readonly credentials: CredentialStore

  constructor(
    private readonly config: Config,
    private readonly database: Database,
    private readonly limits: Limits,
    private readonly pubSub: PubSubEngine,
  ) {
    const { oidc, github } = config.access
    this.providers = new Map<string, SignInProvider>([
      ...(oidc ? [['oidc', new OidcSignIn(oidc)] as const] : []),
      ...(github ? [['github', new GitHubSignIn(github)] as const] : []),
    ])
    this.begun = new SignInStore(database)
    this.credentials = new CredentialStore(database)
  }

  /** Undefined: there is no such provider. @throws SignInFailed, RateLimited */
  async begin(
    provider: string,
    from: { address: string; returnTo: string; session: string | undefined },
  ): Promise<{ url: URL; state: string; browserSecret: string } | undefined> {
    const known = this.providers.get(provider)
    if (!known) return undefined
    this.limits.countSignIn(from.address)
    const checks = {
      state: oidc.randomState(),
      nonce: oidc.randomNonce(),
      codeVerifier: oidc.randomPKCECodeVerifier(),
    }
    const url = await known.begin(checks, `${this.config.publicUrl}/auth/${provider}/callback`)
    const before = from.session === undefined ? undefined : await this.credentials.find(from.session)
    const browserSecret = await this.begun.begin(provider, {
      checks,
      returnTo: from.returnTo,
      sessionId: before?.id ?? null,
    })
    return { url, state: checks.state, browserSecret }
  }

  /** `path`: of the address that the browser has come back to, with its query. @throws SignInFailed, RateLimited */
  async finish(
    provider: string,
    from: { address: string; path: string; browserSecret: string },
  ): Promise<{ secret: string; expiresAt: Date; returnTo: string }> {
    const returned = new URL(from.path, this.config.publicUrl)
    const state = returned.searchParams.get('state') ?? ''
    const known = this.providers.get(provider)
    if (!known) throw new SignInFailed('There is no such way to sign in here.')
    const begun = await this.begun.take(provider, state, from.browserSecret)
    if (!begun) {
      // Anybody can send these.
      const isNoted = this.limits.countGuess(from.address)
      if (isNoted) await this.note(null, provider, from.address, 'UNAUTHENTICATED')
      throw new SignInFailed(
        'This sign-in has been used, has expired, or began in another browser. Begin again.',
      )
    }
    const person = await known.finish(begun.checks, returned).catch(async (error: unknown) => {
      await this.note(null, provider, from.address, 'UNAUTHENTICATED')
      throw error
    })
    const session = await this.letIn(person, provider, from.address, begun.sessionId)
    return { ...session, returnTo: begun.returnTo }
  }

  async signOut({ credential, subject, address }: Sender): Promise<void> {
    if (credential?.kind !== 'session') return
    await this.credentials.revokeSession(credential.id)
    await this.pubSub.publish(ACCESS_TOPIC, {})
    await appendAudit(this.database, { action: 'SIGN_OUT', subject, address, target: null, result: 'OK' })
  }

  private async letIn(
    person: Person,
    provider: string,
    address: string,
    sessionBefore: string | null,
  ): Promise<{ secret: string; expiresAt: Date }> {
    const subject = { id: `user:${person.id}`, name: await this.nameOf(person) }
    const grants = this.grantsOf(person, provider)
    // What has changed since they last came changes in their other browsers, too.
    if (grants.length > 0) await this.credentials.changeSessions(subject.id, grants)
    else await this.credentials.revokeSessionsOf(subject.id)
    if (sessionBefore) await this.credentials.revokeSessionUnlessOf(sessionBefore, subject.id)
    await this.pubSub.publish(ACCESS_TOPIC, {})
    await this.note(subject, provider, address, grants.length > 0 ? 'OK' : 'FORBIDDEN')
    if (grants.length === 0) {
      throw new SignInFailed(
        `You are ${subject.name}, and nothing says what you may do here. Ask whoever runs Shipcast to add one of your groups to ACCESS_ROLES.`,
      )
    }
    await this.credentials.removeEndedSessions(SWEPT_SESSIONS)
    return this.credentials.create({
      kind: 'session',
      subjectId: subject.id,
      name: subject.name,
      grants,
      lifetimeMs: this.config.access.sessionMs,
    })
  }

  /** A person who goes by the name of a service, of `local`, or by what we add to names, is marked. */
  private async nameOf({ name }: Person): Promise<string> {
    // Other forms of the same letters look alike: fullwidth ones, for example.
    const plain = name.normalize('NFKC')
    const isOurs = RESERVED_NAME.test(plain) || (await this.credentials.isTokenName(plain))
    return isOurs ? `${name} (person)` : name
  }

  /** A group is its provider's own: elsewhere anybody may have one of that name. */
  private grantsOf({ groups }: Person, provider: string): Grant[] {
    const { roles } = this.config.access
    // Only as Unicode normalises it: the Kelvin sign is no "k", though it becomes one in small letters.
    const normal = groups.filter((group) => group === group.normalize('NFC'))
    const own = new Set(normal.map((group) => group.toLowerCase()))
    return [...own].sort().flatMap((group) => roles.get(`${provider}:${group}`) ?? [])
  }

  private async note(
    subject: { id: string; name: string } | null,
    provider: string,
    address: string,
    result: string,
  ): Promise<void> {
    await appendAudit(this.database, { action: 'SIGN_IN', subject, address, target: provider, result })
  }
}

/** A way for people to sign in: what the page shows on its button, and where that leads. */
export interface SignInOption {
  name: string
  url: string
}

export function signInOptions({ oidc, github }: Pick<AccessSettings, 'oidc' | 'github'>): SignInOption[] {
  return [
    ...(oidc ? [{ name: oidc.name, url: '/auth/oidc' }] : []),
    ...(github ? [{ name: 'GitHub', url: '/auth/github' }] : []),
  ]
}
