import type { IncomingHttpHeaders, IncomingMessage } from 'node:http'
import { Injectable } from '@nestjs/common'
import { parseCookie } from 'cookie'
import proxyAddress from 'proxy-addr'
import { Config } from '../../config/config.ts'
import { Database } from '../../database/database.ts'
import { Unauthenticated } from '../../errors.ts'
import { appendAudit } from '../audit-log.ts'
import { Limits } from '../limits.ts'
import { LOCAL, type Subject } from '../rights.ts'
import { signInOptions } from '../sign-in/sign-in.service.ts'
import { type Credential, CredentialStore } from './credential-store.ts'

/** The prefix makes browsers take it over https only (or from this machine), and from no other host or path. */
export const SESSION_COOKIE = '__Host-shipcast'

/** What came along with a request, or with the upgrade to a socket. */
export interface Shown {
  headers: Pick<IncomingHttpHeaders, 'authorization' | 'cookie'>
  address: string
}

/** Who somebody is, and for how long that holds. Shared by all who show the same. */
export interface Identity {
  readonly subject: Subject
  /** Undefined: everybody on this machine, where nothing has to be shown. */
  readonly credential: Pick<Credential, 'id' | 'kind' | 'expiresAt'> | undefined
}

const LOCAL_IDENTITY: Identity = { subject: LOCAL, credential: undefined }

/** Tells who a request is from. What is shown counts, also where nothing has to be: a wrong token is never overlooked. */
@Injectable()
export class Authenticator {
  private readonly credentials: CredentialStore
  private readonly underWay = new Map<string, Promise<Credential | undefined>>()

  constructor(
    private readonly config: Config,
    private readonly database: Database,
    private readonly limits: Limits,
  ) {
    this.credentials = new CredentialStore(database)
  }

  /** `secretShown` goes before what the headers hold. @throws Unauthenticated, RateLimited */
  async identify(shown: Shown, secretShown?: string): Promise<Identity> {
    const { headers } = shown
    const secret = secretShown ?? tokenIn(headers.authorization)
    if (secret !== undefined) return this.identifyBy(secret, shown)
    const session = headers.cookie && parseCookie(headers.cookie)[SESSION_COOKIE]
    // Without a provider it is one of another time, and nobody could get a new one.
    if (session && signInOptions(this.config.access).length > 0) return this.identifyBy(session, shown)
    if (this.config.access.isRequired) throw this.unauthenticated(NOTHING_SHOWN)
    return LOCAL_IDENTITY
  }

  private async identifyBy(secret: string, shown: Shown): Promise<Identity> {
    const credential = await this.find(secret)
    if (credential) return { subject: credential.subject, credential }
    const { address } = shown
    // Whoever shows a valid one is let in, also from the address of somebody who guesses.
    if (this.limits.countGuess(address)) await this.noteRefusal(address)
    throw this.unauthenticated(NOT_VALID)
  }

  private unauthenticated(message: string): Unauthenticated {
    const signIn = signInOptions(this.config.access)
    return new Unauthenticated(message, signIn.length > 0 ? { signIn } : {})
  }

  /** Many who come at once with the same token share a look. */
  private find(secret: string): Promise<Credential | undefined> {
    const before = this.underWay.get(secret)
    if (before) return before
    const finding = this.credentials.find(secret).finally(() => this.underWay.delete(secret))
    this.underWay.set(secret, finding)
    return finding
  }

  private async noteRefusal(address: string): Promise<void> {
    const entry = { action: 'AUTHENTICATE', subject: null, address, target: null } as const
    await appendAudit(this.database, { ...entry, result: 'UNAUTHENTICATED' })
  }
}

const NOTHING_SHOWN =
  'Say who you are: send "Authorization: Bearer <token>", or sign in on the page. Tokens are made with "npm run token -- create".'
const NOT_VALID = 'The token or session is not valid, or not any more. Get a new one, or sign in again.'

/** From `Bearer <token>`, or from the password of `Basic …`, which is what git can send. An empty text: not one of them. */
function tokenIn(authorization: string | undefined): string | undefined {
  if (authorization === undefined) return undefined
  const [, scheme = '', value = ''] = /^(\S+) +(\S+) *$/.exec(authorization) ?? []
  if (/^bearer$/i.test(scheme)) return value
  if (!/^basic$/i.test(scheme)) return ''
  const [, password = ''] = Buffer.from(value, 'base64').toString('utf8').split(/:(.*)/s)
  return password
}

/** The token in the payload of `connection_init` or of a `ping`; undefined: none was sent. */
export function tokenInPayload(payload: Record<string, unknown> | undefined): string | undefined {
  for (const [name, value] of Object.entries(payload ?? {})) {
    if (typeof value !== 'string') continue
    if (name.toLowerCase() === 'authorization')
      return tokenIn(value.includes(' ') ? value : `Bearer ${value}`)
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
