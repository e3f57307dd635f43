/** A person, as a provider knows them. */
export interface Person {
  /** Stays the same when they change their name: `https://id.example.com#248289761001`. */
  id: string
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
export class SignInFailed extends Error {
  override readonly name = 'SignInFailed'
}

/** Where people prove who they are. */
export interface SignInProvider {
  /** Where to send the browser, which is then sent on to `redirectUrl`. */
  begin(checks: SignInChecks, redirectUrl: string): Promise<URL>
  /** `returned`: the address that the browser has come back to. @throws SignInFailed */
  finish(checks: SignInChecks, returned: URL): Promise<Person>
}
