import * as oauth from 'openid-client'
import type { AccessSettings } from '../../config/access.config.ts'
import { toSignInError } from './oidc-sign-in.ts'
import {
  displayName,
  type Person,
  type SignInChecks,
  SignInError,
  type SignInProvider,
} from './sign-in-provider.ts'

/** Includes private organizations and teams. */
const SCOPE = 'read:user read:org'
const PROVIDER_NAME = 'GitHub'
const PER_PAGE = 100
const MAX_PAGES = 10

/**
 * GitHub's OAuth, which is not OpenID Connect: the API identifies the person by the token (docs.github.com,
 * "Authorizing OAuth apps"). The token is not stored.
 */
export class GitHubSignIn implements SignInProvider {
  private readonly configuration: oauth.Configuration
  private readonly apiUrl: string
  private readonly issuer: string

  constructor({ url, apiUrl, clientId, clientSecret }: NonNullable<AccessSettings['github']>) {
    this.apiUrl = apiUrl
    this.issuer = url
    this.configuration = new oauth.Configuration(
      {
        // docs.github.com, "GitHub authentication discovery endpoints".
        issuer: `${url}/login/oauth`,
        authorization_endpoint: `${url}/login/oauth/authorize`,
        token_endpoint: `${url}/login/oauth/access_token`,
      },
      clientId,
      clientSecret,
      oauth.ClientSecretPost(clientSecret),
    )
    if (url.startsWith('http:')) oauth.allowInsecureRequests(this.configuration)
  }

  async authorizationUrl({ state, codeVerifier }: SignInChecks, redirectUrl: string): Promise<URL> {
    return oauth.buildAuthorizationUrl(this.configuration, {
      redirect_uri: redirectUrl,
      scope: SCOPE,
      state,
      code_challenge: await oauth.calculatePKCECodeChallenge(codeVerifier),
      code_challenge_method: 'S256',
    })
  }

  completeSignIn(checks: SignInChecks, callbackUrl: URL): Promise<Person> {
    return this.fetchPerson(checks, callbackUrl).catch((error: unknown) => {
      throw toSignInError(error, PROVIDER_NAME)
    })
  }

  private async fetchPerson({ state, codeVerifier }: SignInChecks, callbackUrl: URL): Promise<Person> {
    const { access_token } = await oauth.authorizationCodeGrant(this.configuration, callbackUrl, {
      expectedState: state,
      pkceCodeVerifier: codeVerifier,
    })
    const user = (await this.get(access_token, '/user')) as { id: number; login: string }
    const organizations = await this.list<{ login: string }>(access_token, '/user/orgs')
    const teams = await this.list<{ slug: string; organization: { login: string } }>(
      access_token,
      '/user/teams',
    )
    return {
      id: `${this.issuer}#${user.id}`,
      name: displayName(user.login) ?? String(user.id),
      groups: [
        ...organizations.map(({ login }) => login),
        ...teams.map(({ slug, organization }) => `${organization.login}/${slug}`),
      ],
    }
  }

  private async list<T>(token: string, path: string): Promise<T[]> {
    const all: T[] = []
    for (let page = 1; page <= MAX_PAGES; page++) {
      const items = (await this.get(token, `${path}?per_page=${PER_PAGE}&page=${page}`)) as T[]
      all.push(...items)
      if (items.length < PER_PAGE) break
    }
    return all
  }

  private async get(token: string, path: string): Promise<unknown> {
    const headers = new Headers({ accept: 'application/vnd.github+json', 'user-agent': 'shipcast' })
    const url = new URL(`${this.apiUrl}${path}`)
    const response = await oauth.fetchProtectedResource(
      this.configuration,
      token,
      url,
      'GET',
      undefined,
      headers,
    )
    if (!response.ok) {
      throw new SignInError(
        `GitHub did not identify you (status ${response.status} for ${url.pathname}). Sign in again.`,
      )
    }
    return response.json()
  }
}
