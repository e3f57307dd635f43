import * as oidc from 'openid-client'
import type { AccessSettings } from '../../config/access.config.ts'
import { quote } from '../../errors.ts'
import {
  displayName,
  type Person,
  type SignInChecks,
  SignInError,
  type SignInProvider,
} from './sign-in-provider.ts'

const TIMEOUT_SECONDS = 10
/** How far the provider's clock may be from ours. The nonce keeps an ID token from being used later. */
const CLOCK_TOLERANCE_SECONDS = 300
const MAX_GROUPS = 1_000
/** OpenID Connect Core 1.0, section 2, says ASCII; what is stored and shown must be on one line and visible. */
const SUBJECT_PATTERN = /^[^\p{C}\p{Zl}\p{Zp}]{1,255}$/u

/** Any OpenID Connect provider: authorization code with PKCE, state and nonce (OpenID Connect Core 1.0, 3.1). */
export class OidcSignIn implements SignInProvider {
  private readonly settings: NonNullable<AccessSettings['oidc']>
  private configuration: Promise<oidc.Configuration> | undefined

  constructor(settings: NonNullable<AccessSettings['oidc']>) {
    this.settings = settings
  }

  async authorizationUrl({ state, nonce, codeVerifier }: SignInChecks, redirectUrl: string): Promise<URL> {
    return oidc.buildAuthorizationUrl(await this.getConfiguration(), {
      redirect_uri: redirectUrl,
      scope: this.settings.scopes,
      state,
      nonce,
      code_challenge: await oidc.calculatePKCECodeChallenge(codeVerifier),
      code_challenge_method: 'S256',
    })
  }

  async completeSignIn(checks: SignInChecks, returned: URL): Promise<Person> {
    const configuration = await this.getConfiguration()
    return this.fetchPerson(configuration, checks, returned).catch((error: unknown) => {
      throw toSignInError(error, this.settings.name)
    })
  }

  private async fetchPerson(
    configuration: oidc.Configuration,
    { state, nonce, codeVerifier }: SignInChecks,
    returned: URL,
  ): Promise<Person> {
    const tokens = await oidc.authorizationCodeGrant(configuration, returned, {
      expectedState: state,
      expectedNonce: nonce,
      pkceCodeVerifier: codeVerifier,
      idTokenExpected: true,
    })
    const idToken = tokens.claims()
    if (!idToken) throw new SignInError('The provider sent no ID token. Ask whoever runs Shipcast.')
    if (!SUBJECT_PATTERN.test(idToken.sub)) {
      throw new SignInError(
        `${this.settings.name} sent an identifier (sub) with control characters, or with more than 255 characters. Ask its operator.`,
      )
    }
    const claims = await this.fetchMissingClaims(configuration, tokens.access_token, idToken)
    return {
      id: `${idToken.iss}#${idToken.sub}`,
      name: nameFromClaims(claims) ?? displayName(idToken.sub) ?? 'unnamed',
      groups: stringsInClaim(claims[this.settings.rolesClaim]).slice(0, MAX_GROUPS),
    }
  }

  /** Some providers have the name and the groups in the ID token, others tell them when asked. */
  private async fetchMissingClaims(
    configuration: oidc.Configuration,
    accessToken: string,
    idToken: oidc.IDToken,
  ): Promise<Record<string, unknown>> {
    const hasEndpoint = configuration.serverMetadata().userinfo_endpoint !== undefined
    const isComplete =
      idToken[this.settings.rolesClaim] !== undefined && nameFromClaims(idToken) !== undefined
    if (isComplete || !hasEndpoint) return idToken
    return { ...idToken, ...(await oidc.fetchUserInfo(configuration, accessToken, idToken.sub)) }
  }

  /** Asked for when somebody first signs in: the provider need not be there when Shipcast starts. */
  private getConfiguration(): Promise<oidc.Configuration> {
    this.configuration ??= this.discover().catch((error: unknown) => {
      this.configuration = undefined
      throw providerUnavailable(this.settings.name, error)
    })
    return this.configuration
  }

  private discover(): Promise<oidc.Configuration> {
    const { issuer, clientId, clientSecret } = this.settings
    const metadata = { client_secret: clientSecret, [oidc.clockTolerance]: CLOCK_TOLERANCE_SECONDS }
    return oidc.discovery(new URL(issuer), clientId, metadata, undefined, {
      timeout: TIMEOUT_SECONDS,
      execute: [
        // The library would take the connection's word for who has sent an ID token.
        oidc.enableNonRepudiationChecks,
        // The setting allows it for a provider on this machine only.
        ...(issuer.startsWith('http:') ? [oidc.allowInsecureRequests] : []),
      ],
    })
  }
}

/** Why somebody could not be signed in, for them. What is our own fault stays as it is. */
export function toSignInError(error: unknown, provider: string): unknown {
  if (error instanceof oidc.AuthorizationResponseError) {
    return new SignInError(`${provider} did not let you in (${safeErrorCode(error.error)}). Begin again.`, {
      cause: error,
    })
  }
  if (isUnreachable(error)) return providerUnavailable(provider, error)
  if (PROTOCOL_ERRORS.some((kind) => error instanceof kind)) {
    return new SignInError(`What ${provider} sent could not be accepted. Begin again.`, { cause: error })
  }
  return error
}

/** RFC 6749, 4.1.2.1. It comes with the browser, so from anybody. */
function safeErrorCode(text: string): string {
  return /^[a-z_.-]{1,50}$/i.test(text) ? text : quote(text)
}

const PROTOCOL_ERRORS = [oidc.ClientError, oidc.ResponseBodyError, oidc.WWWAuthenticateChallengeError]

function providerUnavailable(provider: string, cause: unknown): SignInError {
  return new SignInError(`${provider} does not answer at the moment. Try again soon.`, { cause })
}

/** The first is how fetch says that there was no answer at all. */
function isUnreachable(error: unknown): boolean {
  if (error instanceof TypeError) return error.message === 'fetch failed'
  return error instanceof oidc.ClientError && error.code === 'OAUTH_TIMEOUT'
}

function nameFromClaims({ preferred_username, email, name }: Record<string, unknown>): string | undefined {
  return displayName(preferred_username, email, name)
}

function stringsInClaim(claim: unknown): string[] {
  return [claim].flat().filter((value): value is string => typeof value === 'string')
}
