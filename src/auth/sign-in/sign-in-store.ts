import { randomBytes } from 'node:crypto'
import { Inject, Injectable } from '@nestjs/common'
import { Database } from '../../database/database.ts'
import type { Queryable } from '../../database/statement.ts'
import { hashSecret } from '../credentials/credential-store.ts'
import type { SignInChecks } from './sign-in-provider.ts'

const LIFETIME_MINUTES = 10
const SECRET_BYTES = 32

interface PendingSignIn {
  checks: SignInChecks
  /** The path to return to. */
  returnTo: string
  /** The browser's previous session, if any. */
  sessionId: string | null
}

/** Sign-ins in progress, which any node can complete. */
@Injectable()
export class SignInStore {
  constructor(@Inject(Database) private readonly database: Queryable) {}

  /** Returns a secret for the browser: only the browser that started a sign-in can complete it. */
  async create(provider: string, { checks, returnTo, sessionId }: PendingSignIn): Promise<string> {
    const browserSecret = randomBytes(SECRET_BYTES).toString('base64url')
    await this.database.query('delete from sign_ins where expires_at < clock_timestamp()', [])
    await this.database.query(
      `insert into sign_ins (state_hash, browser_hash, provider, code_verifier, nonce, return_to, session_id, expires_at)
       values ($1, $2, $3, $4, $5, $6, $7, clock_timestamp() + $8 * interval '1 minute')`,
      [
        hashSecret(checks.state),
        hashSecret(browserSecret),
        provider,
        checks.codeVerifier,
        checks.nonce,
        returnTo,
        sessionId,
        LIFETIME_MINUTES,
      ],
    )
    return browserSecret
  }

  /** Each sign-in can be completed once. */
  async consume(provider: string, state: string, browserSecret: string): Promise<PendingSignIn | undefined> {
    const [row] = await this.database.query<Omit<PendingSignIn, 'checks'> & Omit<SignInChecks, 'state'>>(
      `delete from sign_ins
       where state_hash = $1 and browser_hash = $2 and provider = $3 and expires_at > clock_timestamp()
       returning code_verifier as "codeVerifier", nonce, return_to as "returnTo", session_id as "sessionId"`,
      [hashSecret(state), hashSecret(browserSecret), provider],
    )
    if (!row) return undefined
    const { nonce, codeVerifier, ...pending } = row
    return { ...pending, checks: { state, nonce, codeVerifier } }
  }
}
