import type { AccessSettings } from '../../config/access.config.ts'

/** A person, as a provider identifies them. */
export interface Person {
  /** Stays the same if the name changes: `https://id.example.com#248289761001`. */
  id: string
  /** From `displayName`. */
  name: string
  /**
   * The groups that ACCESS_ROLES refers to, or GitHub's `acme` and `acme/platform`; in upper or lower case.
   */
  groups: readonly string[]
}

/** Random values of one sign-in, checked when the browser returns (RFC 6749, RFC 7636). */
export interface SignInChecks {
  state: string
  nonce: string
  codeVerifier: string
}

/** A sign-in that failed. The message is for the person. */
export class SignInError extends Error {
  override readonly name = 'SignInError'
}

/** An identity provider. */
export interface SignInProvider {
  /** Where to send the browser; the provider then redirects it to `redirectUrl`. */
  authorizationUrl(checks: SignInChecks, redirectUrl: string): Promise<URL>
  /** `callbackUrl`: the URL that the provider redirected the browser to. @throws SignInError */
  completeSignIn(checks: SignInChecks, callbackUrl: URL): Promise<Person>
}

const MAX_NAME_LENGTH = 100

/**
 * The first candidate that is usable as a name, on one line and without invisible characters or characters
 * that change how others are displayed. People choose their names at the provider; logs and pages must be
 * safe from them.
 */
export function displayName(...candidates: readonly unknown[]): string | undefined {
  for (const candidate of candidates) {
    if (typeof candidate !== 'string') continue
    const visible = candidate
      .replace(/[\p{C}\p{DI}]/gu, '')
      .normalize('NFC')
      // U+2800 is the Braille pattern without dots.
      .replace(/[\p{Z}\u2800]+/gu, ' ')
      .trim()
    const name = [...visible].slice(0, MAX_NAME_LENGTH).join('').trim()
    if (name !== '') return name
  }
  return undefined
}

/** A provider that people can sign in with: the label of the page's button, and its link. */
interface SignInOption {
  name: string
  url: string
}

export function signInOptions({ oidc, github }: Pick<AccessSettings, 'oidc' | 'github'>): SignInOption[] {
  return [
    ...(oidc ? [{ name: oidc.name, url: '/auth/oidc' }] : []),
    ...(github ? [{ name: 'GitHub', url: '/auth/github' }] : []),
  ]
}
