import type { IncomingHttpHeaders, IncomingMessage } from 'node:http'
import { Injectable } from '@nestjs/common'
import { parseCookie } from 'cookie'
import proxyAddress from 'proxy-addr'
import { Config } from '../../config/config.ts'
import { Database } from '../../database/database.ts'
import { UnauthenticatedError } from '../../errors.ts'
import { appendAuditEntry } from '../audit-log.ts'
import { RateLimiter } from '../rate-limiter.ts'
import { LOCAL_SUBJECT, type Subject } from '../rights.ts'
import { signInOptions } from '../sign-in/sign-in.service.ts'
import { type Credential, CredentialStore } from './credential-store.ts'

/** The prefix makes browsers take it over https only (or from this machine), and from no other host or path. */
export const SESSION_COOKIE = '__Host-shipcast'

/** What came along with a request, or with the upgrade to a socket. */
export interface PresentedCredentials {
  headers: Pick<IncomingHttpHeaders, 'authorization' | 'cookie'>
  address: string
}

/** Who somebody is, and for how long that holds. Shared by all who show the same. */
export interface Identity {
  readonly subject: Subject
  /** Undefined: everybody on this machine, where nothing has to be shown. */
  readonly credential: Pick<Credential, 'id' | 'kind' | 'expiresAt'> | undefined
}

const LOCAL_IDENTITY: Identity = { subject: LOCAL_SUBJECT, credential: undefined }

/** Tells who a request is from. What is shown counts, also where nothing has to be: a wrong token is never overlooked. */
@Injectable()
export class Authenticator {
  private readonly credentialStore: CredentialStore
  private readonly pendingLookups = new Map<string, Promise<Credential | undefined>>()

  constructor(
    private readonly config: Config,
    private readonly database: Database,
    private readonly rateLimiter: RateLimiter,
  ) {
    this.credentialStore = new CredentialStore(database)
  }

  /** `secretShown` goes before what the headers hold. @throws Unauthenticated, RateLimited */
  async authenticate(shown: PresentedCredentials, secretShown?: string): Promise<Identity> {
    const { headers } = shown
    const secret = secretShown ?? parseAuthorization(headers.authorization)
    if (secret !== undefined) return this.authenticateSecret(secret, shown)
    const session = headers.cookie && parseCookie(headers.cookie)[SESSION_COOKIE]
    // Without a provider it is one of another time, and nobody could get a new one.
    if (session && signInOptions(this.config.access).length > 0)
      return this.authenticateSecret(session, shown)
    if (this.config.access.isRequired) throw this.unauthenticated(AUTHENTICATION_REQUIRED)
    return LOCAL_IDENTITY
  }

  private async authenticateSecret(secret: string, shown: PresentedCredentials): Promise<Identity> {
    const credential = await this.findCredential(secret)
    if (credential) return { subject: credential.subject, credential }
    const { address } = shown
    // Whoever shows a valid one is let in, also from the address of somebody who guesses.
    if (this.rateLimiter.recordFailedAuth(address)) await this.auditFailedAuth(address)
    throw this.unauthenticated(INVALID_CREDENTIALS)
  }

  private unauthenticated(message: string): UnauthenticatedError {
    const signIn = signInOptions(this.config.access)
    return new UnauthenticatedError(message, signIn.length > 0 ? { signIn } : {})
  }

  /** Many who come at once with the same token share a look. */
  private findCredential(secret: string): Promise<Credential | undefined> {
    const before = this.pendingLookups.get(secret)
    if (before) return before
    const finding = this.credentialStore.find(secret).finally(() => this.pendingLookups.delete(secret))
    this.pendingLookups.set(secret, finding)
    return finding
  }

  private async auditFailedAuth(address: string): Promise<void> {
    const entry = { action: 'AUTHENTICATE', subject: null, address, target: null } as const
    await appendAuditEntry(this.database, { ...entry, result: 'UNAUTHENTICATED' })
  }
}

const AUTHENTICATION_REQUIRED =
  'Say who you are: send "Authorization: Bearer <token>", or sign in on the page. Tokens are made with "npm run token -- create".'
const INVALID_CREDENTIALS =
  'The token or session is not valid, or not any more. Get a new one, or sign in again.'

/** From `Bearer <token>`, or from the password of `Basic …`, which is what git can send. An empty text: not one of them. */
function parseAuthorization(authorization: string | undefined): string | undefined {
  if (authorization === undefined) return undefined
  const [, scheme = '', value = ''] = /^(\S+) +(\S+) *$/.exec(authorization) ?? []
  if (/^bearer$/i.test(scheme)) return value
  if (!/^basic$/i.test(scheme)) return ''
  const [, password = ''] = Buffer.from(value, 'base64').toString('utf8').split(/:(.*)/s)
  return password
}

/** The token in the payload of `connection_init` or of a `ping`; undefined: none was sent. */
export function tokenFromPayload(payload: Record<string, unknown> | undefined): string | undefined {
  for (const [name, value] of Object.entries(payload ?? {})) {
    if (typeof value !== 'string') continue
    if (name.toLowerCase() === 'authorization')
      return parseAuthorization(value.includes(' ') ? value : `Bearer ${value}`)
    if (name.toLowerCase() === 'token') return value
  }
  return undefined
}

/**
 * The address that a request comes from: of the connection, or what a trusted proxy (TRUSTED_PROXIES) says in
 * X-Forwarded-For.
 */
export function clientAddress(trustedProxies: readonly string[]): (request: IncomingMessage) => string {
  const isTrusted = proxyAddress.compile([...trustedProxies])
  return (request) => proxyAddress(request, isTrusted)
}
