import type { AccessSettings } from '../../config/access.config.ts'

/** A person, as a provider knows them. */
export interface Person {
  /** Stays the same when they change their name: `https://id.example.com#248289761001`. */
  id: string
  /** Made by `personName`. */
  name: string
  /** What ACCESS_ROLES speaks of: groups, or GitHub's `acme` and `acme/platform`. In any case of letters. */
  groups: readonly string[]
}

/** What is made up for one way to a provider and back, and checked when the browser comes back (RFC 6749, RFC 7636). */
export interface SignInChecks {
  state: string
  nonce: string
  codeVerifier: string
}

/** Why nobody was signed in, as a sentence for them. */
export class SignInError extends Error {
  override readonly name = 'SignInError'
}

/** Where people prove who they are. */
export interface SignInProvider {
  /** Where to send the browser, which is then sent on to `redirectUrl`. */
  authorizationUrl(checks: SignInChecks, redirectUrl: string): Promise<URL>
  /** `returned`: the address that the browser has come back to. @throws SignInFailed */
  completeSignIn(checks: SignInChecks, returned: URL): Promise<Person>
}

const MAX_NAME_LENGTH = 100

/**
 * The first of these texts that somebody can be called by: on one line, and without characters that do not show or that
 * change how others show. Whoever names themselves at a provider chooses what stands in our log and on our page.
 */
export function displayName(...candidates: readonly unknown[]): string | undefined {
  for (const candidate of candidates) {
    if (typeof candidate !== 'string') continue
    const visible = candidate
      .replace(/[\p{C}\p{DI}]/gu, '')
      .normalize('NFC')
      // U+2800 is the pattern of Braille without a dot.
      .replace(/[\p{Z}\u2800]+/gu, ' ')
      .trim()
    const name = [...visible].slice(0, MAX_NAME_LENGTH).join('').trim()
    if (name !== '') return name
  }
  return undefined
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
