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
/** Tolerance between the provider's clock and ours. The nonce prevents later use of an ID token. */
const CLOCK_TOLERANCE_SECONDS = 300
const MAX_GROUPS = 1_000
/** OpenID Connect Core 1.0, section 2, requires ASCII; what is stored must be visible, on one line. */
const SUBJECT_PATTERN = /^[^\p{C}\p{Zl}\p{Zp}]{1,255}$/u

/**
 * Any OpenID Connect provider: authorization code with PKCE, state and nonce (OpenID Connect Core 1.0, 3.1).
 */
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

  async completeSignIn(checks: SignInChecks, callbackUrl: URL): Promise<Person> {
    const configuration = await this.getConfiguration()
    return this.fetchPerson(configuration, checks, callbackUrl).catch((error: unknown) => {
      throw toSignInError(error, this.settings.name)
    })
  }

  private async fetchPerson(
    configuration: oidc.Configuration,
    { state, nonce, codeVerifier }: SignInChecks,
    callbackUrl: URL,
  ): Promise<Person> {
    const tokens = await oidc.authorizationCodeGrant(configuration, callbackUrl, {
      expectedState: state,
      expectedNonce: nonce,
      pkceCodeVerifier: codeVerifier,
      idTokenExpected: true,
    })
    const idToken = tokens.claims()
    if (!idToken)
      throw new SignInError(`${this.settings.name} sent no ID token. Ask the operator of Shipcast.`)
    if (!SUBJECT_PATTERN.test(idToken.sub)) {
      throw new SignInError(
        `${this.settings.name} sent an identifier (sub) with control characters, or with more than 255 characters. Ask the provider's operator.`,
      )
    }
    const claims = await this.fetchMissingClaims(configuration, tokens.access_token, idToken)
    return {
      id: `${idToken.iss}#${idToken.sub}`,
      name: nameFromClaims(claims) ?? displayName(idToken.sub) ?? 'unnamed',
      groups: stringsInClaim(claims[this.settings.rolesClaim]).slice(0, MAX_GROUPS),
    }
  }

  /** Some providers put the name and groups into the ID token, others only into the userinfo response. */
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

  /** Fetched at the first sign-in: Shipcast starts even if the provider is unavailable. */
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
        // By default the library trusts the TLS connection instead of the ID token's signature.
        oidc.enableNonRepudiationChecks,
        // The setting allows http: only for a provider on this machine.
        ...(issuer.startsWith('http:') ? [oidc.allowInsecureRequests] : []),
      ],
    })
  }
}

/** Translates errors of the provider into messages for the person. Internal errors pass unchanged. */
export function toSignInError(error: unknown, provider: string): unknown {
  if (error instanceof oidc.AuthorizationResponseError) {
    return new SignInError(
      `${provider} refused the sign-in (${safeErrorCode(error.error)}). Sign in again.`,
      {
        cause: error,
      },
    )
  }
  if (isUnreachable(error)) return providerUnavailable(provider, error)
  if (PROTOCOL_ERRORS.some((kind) => error instanceof kind)) {
    return new SignInError(`${provider} sent an invalid response. Sign in again.`, { cause: error })
  }
  return error
}

/** RFC 6749, 4.1.2.1. It comes from the browser, so it is untrusted. */
function safeErrorCode(text: string): string {
  return /^[a-z_.-]{1,50}$/i.test(text) ? text : quote(text)
}

const PROTOCOL_ERRORS = [oidc.ClientError, oidc.ResponseBodyError, oidc.WWWAuthenticateChallengeError]

function providerUnavailable(provider: string, cause: unknown): SignInError {
  return new SignInError(`${provider} is not responding. Try again soon.`, { cause })
}

/** `fetch` throws a TypeError if there was no response. */
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
