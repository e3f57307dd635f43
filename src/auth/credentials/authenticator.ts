import type { IncomingHttpHeaders } from 'node:http'
import { Injectable } from '@nestjs/common'
import { parseCookie } from 'cookie'
import { Config } from '../../config/config.ts'
import { Database } from '../../database/database.ts'
import { UnauthenticatedError } from '../../errors.ts'
import { SharedCalls } from '../../runtime/coalesced-task.ts'
import { appendAuditEntry } from '../audit-log.ts'
import { RateLimiter } from '../rate-limiter.ts'
import { LOCAL_SUBJECT, type Subject } from '../rights.ts'
import { signInOptions } from '../sign-in/sign-in-provider.ts'
import { type Credential, CredentialStore } from './credential-store.ts'

/**
 * The prefix makes browsers accept it only over https (or from this machine), and from no other host or path.
 */
export const SESSION_COOKIE = '__Host-shipcast'

/** The headers and the network address of a request, or of the upgrade to a socket. */
export interface PresentedCredentials {
  headers: Pick<IncomingHttpHeaders, 'authorization' | 'cookie'>
  address: string
}

/** An authenticated subject, and the credential that proves it. */
export interface Identity {
  readonly subject: Subject
  /** Undefined: the local subject, where access is not configured. */
  readonly credential: Pick<Credential, 'id' | 'kind' | 'expiresAt'> | undefined
}

const LOCAL_IDENTITY: Identity = { subject: LOCAL_SUBJECT, credential: undefined }

/**
 * Authenticates requests and sockets. An invalid credential is always refused, even where none is required.
 */
@Injectable()
export class Authenticator {
  private readonly lookups = new SharedCalls<Credential | undefined>()

  constructor(
    private readonly config: Config,
    private readonly database: Database,
    private readonly credentialStore: CredentialStore,
    private readonly rateLimiter: RateLimiter,
  ) {}

  /** `token` takes precedence over the headers. @throws UnauthenticatedError, RateLimitedError */
  async authenticate({ headers, address }: PresentedCredentials, token?: string): Promise<Identity> {
    const secret = token ?? parseAuthorization(headers.authorization)
    if (secret !== undefined) return this.authenticateSecret(secret, address)
    const session = headers.cookie && parseCookie(headers.cookie)[SESSION_COOKIE]
    // Without a provider, the cookie is left over from an earlier configuration and could not be renewed.
    if (session && signInOptions(this.config.access).length > 0) {
      return this.authenticateSecret(session, address)
    }
    if (this.config.access.isRequired) throw this.unauthenticated(AUTHENTICATION_REQUIRED)
    return LOCAL_IDENTITY
  }

  private async authenticateSecret(secret: string, address: string): Promise<Identity> {
    // The rate limit comes after the lookup: someone who guesses must not lock out others at the same
    // address.
    const credential = await this.findCredential(secret)
    if (credential) return { subject: credential.subject, credential }
    if (this.rateLimiter.recordFailedAuth(address)) await this.auditFailedAuth(address)
    throw this.unauthenticated(INVALID_CREDENTIALS)
  }

  private unauthenticated(message: string): UnauthenticatedError {
    const signIn = signInOptions(this.config.access)
    return new UnauthenticatedError(message, signIn.length > 0 ? { signIn } : {})
  }

  /** Concurrent requests with the same secret share one lookup. */
  private findCredential(secret: string): Promise<Credential | undefined> {
    return this.lookups.run(secret, () => this.credentialStore.find(secret))
  }

  private async auditFailedAuth(address: string): Promise<void> {
    const entry = { action: 'AUTHENTICATE', subject: null, address, target: null } as const
    await appendAuditEntry(this.database, { ...entry, result: 'UNAUTHENTICATED' })
  }
}

const AUTHENTICATION_REQUIRED =
  'Authentication required: send "Authorization: Bearer <token>", or sign in on the page. Create tokens with "npm run token -- create".'
const INVALID_CREDENTIALS =
  'The token or session is invalid, expired or revoked. Get a new token, or sign in again.'

/** The secret of `Bearer <token>`, or the password of `Basic …`, which git sends; empty for other schemes. */
function parseAuthorization(authorization: string | undefined): string | undefined {
  if (authorization === undefined) return undefined
  const [, scheme = '', value = ''] = /^(\S+) +(\S+) *$/.exec(authorization) ?? []
  if (/^bearer$/i.test(scheme)) return value
  if (!/^basic$/i.test(scheme)) return ''
  const [, password = ''] = Buffer.from(value, 'base64').toString('utf8').split(/:(.*)/s)
  return password
}

/** The token in the payload of a `connection_init` or `ping` message; undefined if it has none. */
export function tokenFromPayload(payload: Record<string, unknown> | undefined): string | undefined {
  for (const [name, value] of Object.entries(payload ?? {})) {
    if (typeof value !== 'string') continue
    if (name.toLowerCase() === 'authorization')
      return parseAuthorization(value.includes(' ') ? value : `Bearer ${value}`)
    if (name.toLowerCase() === 'token') return value
  }
  return undefined
}
