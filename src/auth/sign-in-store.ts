import { randomBytes } from 'node:crypto'
import type { Queryable } from '../database/database.ts'
import { hashOf } from './credential-store.ts'
import type { SignInChecks } from './sign-in-provider.ts'

const LIFETIME_MINUTES = 10
const SECRET_BYTES = 32

export interface BegunSignIn {
  checks: SignInChecks
  /** Where the person wanted to be. */
  returnTo: string
}

/** Those who are on their way to a provider and back; on any node. */
export class SignInStore {
  private readonly database: Queryable

  constructor(database: Queryable) {
    this.database = database
  }

  /** Returns a secret for the browser in which it began: the answer is taken from no other one. */
  async begin(provider: string, { checks, returnTo }: BegunSignIn): Promise<string> {
    const browserSecret = randomBytes(SECRET_BYTES).toString('base64url')
    await this.database.query('delete from sign_ins where expires_at < clock_timestamp()', [])
    await this.database.query(
      `insert into sign_ins (state_hash, browser_hash, provider, code_verifier, nonce, return_to, expires_at)
       values ($1, $2, $3, $4, $5, $6, clock_timestamp() + $7 * interval '1 minute')`,
      [
        hashOf(checks.state),
        hashOf(browserSecret),
        provider,
        checks.codeVerifier,
        checks.nonce,
        returnTo,
        LIFETIME_MINUTES,
      ],
    )
    return browserSecret
  }

  /** Once: whoever comes with the same answer again finds nothing. */
  async take(provider: string, state: string, browserSecret: string): Promise<BegunSignIn | undefined> {
    const [row] = await this.database.query<{ codeVerifier: string; nonce: string; returnTo: string }>(
      `delete from sign_ins
       where state_hash = $1 and browser_hash = $2 and provider = $3 and expires_at > clock_timestamp()
       returning code_verifier as "codeVerifier", nonce, return_to as "returnTo"`,
      [hashOf(state), hashOf(browserSecret), provider],
    )
    return (
      row && { checks: { state, nonce: row.nonce, codeVerifier: row.codeVerifier }, returnTo: row.returnTo }
    )
  }
}
