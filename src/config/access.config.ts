import { z } from 'zod'
import {
  combine,
  integer,
  isLoopbackHost,
  oneOf,
  parseAs,
  rejectSettings,
  secureUrl,
  text,
  textOr,
} from './env-values.ts'
import { githubApiUrl } from './github.config.ts'
import { type Grant, InvalidGrantError, parseRoleMapping } from './grants.ts'
import { networkSchema } from './network.config.ts'

/** Who has access, with which roles and limits. */
export interface AccessSettings extends SignInSettings, LimitSettings {
  /** False: everyone on this machine is an admin, and no one else can reach it. */
  readonly isRequired: boolean
  /** By group: `oidc:developers`, or a GitHub organization or team, `github:acme`, `github:acme/platform`. */
  readonly grantsByGroup: ReadonlyMap<string, readonly Grant[]>
}

/** The providers that people sign in with. */
interface SignInSettings {
  /** Any OpenID Connect provider. */
  readonly oidc:
    | {
        readonly name: string
        readonly issuer: string
        readonly clientId: string
        readonly clientSecret: string
        readonly scopes: string
        readonly rolesClaim: string
      }
    | undefined
  /** OAuth on github.com or an Enterprise Server. */
  readonly github:
    | {
        readonly clientId: string
        readonly clientSecret: string
        readonly url: string
        readonly apiUrl: string
      }
    | undefined
}

interface LimitSettings {
  readonly sessionMs: number
  readonly mutationsPerMinute: number
  readonly subscriptionsPerMinute: number
  /** For queries and mutations together; about one for each field of a response. */
  readonly costPerMinute: number
  readonly signInsPerMinute: number
}

const HOUR_MS = 3_600_000
const ROLES_EXAMPLE =
  'for example ACCESS_ROLES="platform-team=admin; developers=deployer:acme,acme-labs; staff=viewer"'

const limitsSchema = z
  .object({
    SESSION_HOURS: integer({ defaultValue: 12, min: 1, max: 720 }),
    MUTATIONS_PER_MINUTE: integer({ defaultValue: 120, min: 1, max: 1_000_000 }),
    SUBSCRIPTIONS_PER_MINUTE: integer({ defaultValue: 3_000, min: 1, max: 1_000_000 }),
    COST_PER_MINUTE: integer({ defaultValue: 500_000, min: 20_000, max: 1_000_000_000 }),
    SIGN_INS_PER_MINUTE: integer({ defaultValue: 20, min: 1, max: 1_000_000 }),
  })
  .transform(
    (env): LimitSettings => ({
      sessionMs: env.SESSION_HOURS * HOUR_MS,
      mutationsPerMinute: env.MUTATIONS_PER_MINUTE,
      subscriptionsPerMinute: env.SUBSCRIPTIONS_PER_MINUTE,
      costPerMinute: env.COST_PER_MINUTE,
      signInsPerMinute: env.SIGN_INS_PER_MINUTE,
    }),
  )

const oidcSchema = z
  .object({
    OIDC_ISSUER: secureUrl('https://id.example.com'),
    OIDC_CLIENT_ID: text,
    OIDC_CLIENT_SECRET: text,
    OIDC_NAME: text,
    OIDC_SCOPES: textOr('openid profile email'),
    OIDC_ROLES_CLAIM: textOr('groups'),
  })
  .transform((env, context): SignInSettings['oidc'] => {
    const { OIDC_ISSUER: issuer, OIDC_CLIENT_ID: clientId, OIDC_CLIENT_SECRET: clientSecret } = env
    if (!issuer && !clientId && !clientSecret) return undefined
    if (!issuer || !clientId || !clientSecret) {
      return rejectSettings(
        context,
        'OIDC_ISSUER, OIDC_CLIENT_ID and OIDC_CLIENT_SECRET belong together: the provider issues them, for example OIDC_ISSUER=https://id.example.com. Set all three, or none.',
      )
    }
    return {
      name: env.OIDC_NAME ?? issuer.host,
      issuer: issuer.href,
      clientId,
      clientSecret,
      scopes: env.OIDC_SCOPES,
      rolesClaim: env.OIDC_ROLES_CLAIM,
    }
  })

const githubUrlsSchema = z.object({
  GITHUB_OAUTH_URL: secureUrl('https://github.example.com'),
  GITHUB_API_URL: githubApiUrl,
})

const githubSignInSchema = z
  .looseObject({ GITHUB_OAUTH_CLIENT_ID: text, GITHUB_OAUTH_CLIENT_SECRET: text })
  .transform((env, context): SignInSettings['github'] => {
    const { GITHUB_OAUTH_CLIENT_ID: clientId, GITHUB_OAUTH_CLIENT_SECRET: clientSecret } = env
    if (!clientId && !clientSecret) return undefined
    if (!clientId || !clientSecret) {
      return rejectSettings(
        context,
        'GITHUB_OAUTH_CLIENT_ID and GITHUB_OAUTH_CLIENT_SECRET belong together: both are in the settings of the OAuth app, for example GITHUB_OAUTH_CLIENT_ID=Ov23liABCDEF. Set both, or none.',
      )
    }
    const urls = parseAs(githubUrlsSchema, env, context)
    const url = urls.GITHUB_OAUTH_URL?.origin ?? 'https://github.com'
    return { clientId, clientSecret, url, apiUrl: urls.GITHUB_API_URL }
  })

const signInSchema = combine({
  oidc: oidcSchema,
  github: githubSignInSchema,
  network: networkSchema,
  access: z.object({ ACCESS: oneOf(['local', 'required'], 'required'), ACCESS_ROLES: text }),
}).transform(({ oidc, github, network, access }, context) => {
  const signInSetting = oidc ? 'OIDC_ISSUER' : github ? 'GITHUB_OAUTH_CLIENT_ID' : undefined
  const isRequired = (access.ACCESS ?? (signInSetting ? 'required' : 'local')) === 'required'
  const isPublicUrlLocal = isLoopbackHost(new URL(network.publicUrl).hostname)
  if (!isRequired && signInSetting) {
    rejectSettings(
      context,
      `ACCESS=local gives everyone on this machine access, so ${signInSetting} has no effect. Leave one of them out.`,
    )
  }
  const exposure = !isLoopbackHost(network.host)
    ? `HOST=${network.host}`
    : isPublicUrlLocal
      ? undefined
      : `PUBLIC_URL=${network.publicUrl}`
  if (!isRequired && exposure) rejectSettings(context, unprotectedAccessMessage(exposure))
  if (signInSetting && !network.publicUrl.startsWith('https:') && !isPublicUrlLocal) {
    rejectSettings(
      context,
      `PUBLIC_URL must begin with https:// for people to sign in, for example PUBLIC_URL=https://shipcast.example.com. It is "${network.publicUrl}".`,
    )
  }
  if (signInSetting && access.ACCESS_ROLES === undefined) {
    rejectSettings(
      context,
      `${signInSetting} is set but ACCESS_ROLES is not, so no one could sign in. ACCESS_ROLES assigns roles to groups of the provider, or to organizations and teams of GitHub (acme, acme/platform); ${ROLES_EXAMPLE}.`,
    )
  }
  const providers = [...(oidc ? ['oidc'] : []), ...(github ? ['github'] : [])]
  const grantsByGroup = parseRoles(access.ACCESS_ROLES ?? '', providers, context)
  return { isRequired, oidc, github, grantsByGroup }
})

export const accessSchema = combine({ signIn: signInSchema, limits: limitsSchema }).transform(
  ({ signIn, limits }): AccessSettings => ({ ...signIn, ...limits }),
)

function parseRoles(
  value: string,
  providers: readonly string[],
  context: z.core.$RefinementCtx<unknown>,
): Map<string, Grant[]> {
  try {
    return parseRoleMapping(value, providers)
  } catch (error) {
    if (!(error instanceof InvalidGrantError)) throw error
    return rejectSettings(context, `ACCESS_ROLES ${error.message}; ${ROLES_EXAMPLE}. It is "${value}".`)
  }
}

function unprotectedAccessMessage(exposure: string): string {
  return [
    `${exposure} exposes Shipcast to other machines, but no access is configured. Set one of these, or HOST=127.0.0.1:`,
    '- ACCESS=required: services use tokens; create the first with "npm run token -- create --name admin --role admin"',
    '- OIDC_ISSUER, OIDC_CLIENT_ID, OIDC_CLIENT_SECRET and ACCESS_ROLES: people sign in with an OpenID Connect provider',
    '- GITHUB_OAUTH_CLIENT_ID, GITHUB_OAUTH_CLIENT_SECRET and ACCESS_ROLES: people sign in with GitHub',
  ].join('\n')
}
