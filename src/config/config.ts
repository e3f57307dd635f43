import { createPrivateKey } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import proxyAddress from 'proxy-addr'
import type { Grant } from '../auth/rights.ts'
import { parseRoleMapping, qualifyGroupsByProvider } from '../auth/role-mapping.ts'

/** A setting that cannot be used. The message names the variable, says what is wrong with it, and shows a good value. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError'
}

/** How GitHub is reached, and as whom. */
export interface GitHubSettings {
  /** Of the REST API, without a slash at the end. */
  readonly apiUrl: string
  readonly credential:
    | { readonly kind: 'token'; readonly token: string }
    | { readonly kind: 'app'; readonly appId: string; readonly privateKey: string }
  /** Milliseconds between two writes. */
  readonly writeSpacingMs: number
  /** Where organizations are created on Enterprise Cloud. */
  readonly enterprise: { readonly slug: string; readonly billingEmail: string } | undefined
  readonly proxies: {
    readonly httpProxy: string | undefined
    readonly httpsProxy: string | undefined
    readonly noProxy: string | undefined
  }
}

/** Who is let in, and as what. */
export interface AccessSettings {
  /** False: everybody on this machine is an admin. Others cannot reach it then. */
  readonly isRequired: boolean
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
  /** GitHub's OAuth, of github.com or of an Enterprise Server. */
  readonly github:
    | {
        readonly clientId: string
        readonly clientSecret: string
        readonly url: string
        readonly apiUrl: string
      }
    | undefined
  /** What a group of the provider, or an organization or team of GitHub, may do: by `oidc:developers`, `github:acme`. */
  readonly grantsByGroup: ReadonlyMap<string, readonly Grant[]>
  readonly sessionMs: number
  readonly mutationsPerMinute: number
  readonly subscriptionsPerMinute: number
  /** Of queries and mutations together, about one for each field of an answer. */
  readonly costPerMinute: number
  readonly signInsPerMinute: number
}

/** The environment, read once at start. Every setting has a type, a unit and a default. See `.env.example`. */
export class Config {
  /** Where it listens. */
  readonly host: string
  readonly port: number
  /** How others reach it, without a slash at the end; clone URLs start with it. */
  readonly publicUrl: string
  /** Absolute folder of the embedded Postgres and of the local forge. */
  readonly dataDir: string
  /** `postgres://…`, or undefined for the embedded Postgres below `dataDir`. */
  readonly databaseUrl: string | undefined
  /** The same database without the pooler in front of it, for LISTEN; undefined: `databaseUrl` does for that too. */
  readonly databaseListenUrl: string | undefined
  /** Where repositories go. */
  readonly forge: 'local' | 'github'
  /** Where `forge` is `github`. */
  readonly github: GitHubSettings | undefined
  /** Absolute folder; each of its subfolders is a template. */
  readonly templatesDir: string
  /** How many deployments this node runs at once; the rest wait as `QUEUED`. */
  readonly deployConcurrency: number
  /** Milliseconds that a runner may be silent before another takes over. Its heartbeat is a third of it. */
  readonly leaseMs: number
  /** Milliseconds over which a node that goes away sends its viewers elsewhere. */
  readonly drainMs: number
  /** Days for which the contents of a deployment are kept after its end; until then it can be retried. */
  readonly retentionDays: number
  readonly logLevel: LogLevel
  readonly access: AccessSettings
  /** Addresses or networks of the proxies in front, whose word about where a request comes from is taken. */
  readonly trustedProxies: readonly string[]

  /** @throws ConfigError */
  constructor(env: NodeJS.ProcessEnv) {
    const read = new EnvReader(env)
    this.host = read.host('HOST', '127.0.0.1')
    this.port = read.integer('PORT', 3000, { min: 1, max: 65_535 })
    this.publicUrl = read.httpUrl('PUBLIC_URL', `http://${urlHost(this.host)}:${this.port}`)
    this.dataDir = resolve(read.text('DATA_DIR', './data'))
    this.databaseUrl = read.postgresUrl('DATABASE_URL')
    this.databaseListenUrl = read.postgresUrl('DATABASE_LISTEN_URL')
    if (this.databaseListenUrl && !this.databaseUrl) {
      throw new ConfigError(
        'DATABASE_LISTEN_URL goes with DATABASE_URL, which is not set. Set both, or neither.',
      )
    }
    this.forge = read.forge()
    this.github = this.forge === 'github' ? read.github() : undefined
    this.templatesDir = resolve(read.text('TEMPLATES_DIR', BUNDLED_TEMPLATES_DIR))
    this.deployConcurrency = read.integer('DEPLOY_CONCURRENCY', 10, { min: 1, max: 1_000 })
    this.leaseMs = read.integer('LEASE_MS', 6_000, { min: 500, max: 600_000 })
    this.drainMs = read.integer('DRAIN_MS', 5_000, { min: 0, max: 600_000 })
    this.retentionDays = read.integer('RETENTION_DAYS', 30, { min: 1, max: 36_500 })
    this.logLevel = read.oneOf('LOG_LEVEL', LOG_LEVELS, 'info')
    this.access = read.access(this)
    this.trustedProxies = read.proxies('TRUSTED_PROXIES')
  }
}

/** Ours, wherever the server is started from. */
const BUNDLED_TEMPLATES_DIR = fileURLToPath(new URL('../../templates', import.meta.url))

const LOG_LEVELS = ['error', 'warn', 'info', 'debug'] as const
export type LogLevel = (typeof LOG_LEVELS)[number]

const GITHUB_CREDENTIALS = ['GITHUB_TOKEN', 'GITHUB_APP_ID'] as const

class EnvReader {
  private readonly env: NodeJS.ProcessEnv

  // No parameter property: this file is also loaded by plain Node, which only strips types.
  constructor(env: NodeJS.ProcessEnv) {
    this.env = env
  }

  /** An empty variable counts as unset, as in a `.env` file with nothing behind the `=`. */
  private value(name: string): string | undefined {
    return this.env[name]?.trim() || undefined
  }

  text(name: string, otherwise: string): string {
    return this.value(name) ?? otherwise
  }

  integer(name: string, otherwise: number, { min, max }: { min: number; max: number }): number {
    const value = this.value(name)
    if (value === undefined) return otherwise
    const number = /^\d+$/.test(value) ? Number(value) : Number.NaN
    if (!(number >= min && number <= max)) {
      throw new ConfigError(
        `${name} must be a whole number from ${min} to ${max}, for example ${name}=${otherwise}. It is "${value}".`,
      )
    }
    return number
  }

  oneOf<const T extends string>(name: string, allowed: readonly T[], otherwise: T): T {
    const value = this.value(name)
    if (value === undefined) return otherwise
    const found = allowed.find((item) => item === value.toLowerCase())
    if (found === undefined) {
      throw new ConfigError(
        `${name} must be one of ${allowed.join(', ')}, for example ${name}=${otherwise}. It is "${value}".`,
      )
    }
    return found
  }

  host(name: string, otherwise: string): string {
    const value = this.text(name, otherwise)
    if (!/^[A-Za-z0-9.:_-]+$/.test(value)) {
      throw new ConfigError(
        `${name} must be a host name or an address without a port, for example ${name}=${otherwise}. It is "${value}".`,
      )
    }
    return value
  }

  httpUrl(name: string, otherwise: string): string {
    const value = this.text(name, otherwise)
    const url = URL.parse(value)
    if (
      !url ||
      !/^https?:$/.test(url.protocol) ||
      url.pathname !== '/' ||
      url.search ||
      url.hash ||
      url.username
    ) {
      throw new ConfigError(
        `${name} must be http:// or https:// with a host and no path, for example ${name}=https://shipcast.example.com. It is "${value}".`,
      )
    }
    return url.origin
  }

  /** The value is never shown: it may hold a password. */
  postgresUrl(name: string): string | undefined {
    const value = this.value(name)
    if (value === undefined) return undefined
    const example = `${name}=postgres://user:password@host:5432/shipcast`
    // libpq's form for a unix socket has no host before the path: postgres://user@/database?host=/folder
    const withHost = value.replaceAll(' ', '%20').replace('@/', '@localhost/')
    if (!/^postgres(ql)?:\/\//.test(value) || !URL.canParse(withHost)) {
      throw new ConfigError(
        `${name} must be an address that starts with postgres://, its password percent-encoded, for example ${example}. Leave it out for the embedded Postgres.`,
      )
    }
    return value
  }

  /** Addresses, networks, or one of proxy-addr's names for networks. */
  proxies(name: string): string[] {
    const proxies = (this.value(name) ?? '').split(',').flatMap((item) => item.trim() || [])
    try {
      proxyAddress.compile(proxies)
    } catch (error) {
      throw new ConfigError(
        `${name} must be addresses or networks with commas between them, for example ${name}=10.0.0.0/8,127.0.0.1. It is not: ${(error as Error).message}.`,
      )
    }
    return proxies
  }

  access({ host, publicUrl }: Pick<Config, 'host' | 'publicUrl'>): AccessSettings {
    const oidc = this.oidc()
    const github = this.githubSignIn()
    const signIn = oidc ? 'OIDC_ISSUER' : github ? 'GITHUB_OAUTH_CLIENT_ID' : undefined
    const mode = this.oneOf('ACCESS', ['local', 'required'], signIn ? 'required' : 'local')
    if (mode === 'local' && signIn) {
      throw new ConfigError(
        `ACCESS=local lets everybody on this machine in, so that ${signIn} has no use. Leave one of them out.`,
      )
    }
    const reached = !isLoopbackHost(host)
      ? `HOST=${host}`
      : !isLoopbackHost(new URL(publicUrl).hostname)
        ? `PUBLIC_URL=${publicUrl}`
        : undefined
    if (mode === 'local' && reached) throw new ConfigError(unprotectedAccessMessage(reached))
    if (signIn && !publicUrl.startsWith('https:') && !isLoopbackHost(new URL(publicUrl).hostname)) {
      throw new ConfigError(
        `PUBLIC_URL must begin with https:// for people to sign in, for example PUBLIC_URL=https://shipcast.example.com. It is "${publicUrl}".`,
      )
    }
    return {
      isRequired: mode === 'required',
      oidc,
      github,
      grantsByGroup: this.roles(signIn, [...(oidc ? ['oidc'] : []), ...(github ? ['github'] : [])]),
      sessionMs: this.integer('SESSION_HOURS', 12, { min: 1, max: 720 }) * 3_600_000,
      mutationsPerMinute: this.integer('MUTATIONS_PER_MINUTE', 120, { min: 1, max: 1_000_000 }),
      subscriptionsPerMinute: this.integer('SUBSCRIPTIONS_PER_MINUTE', 3_000, { min: 1, max: 1_000_000 }),
      costPerMinute: this.integer('COST_PER_MINUTE', 500_000, { min: 20_000, max: 1_000_000_000 }),
      signInsPerMinute: this.integer('SIGN_INS_PER_MINUTE', 20, { min: 1, max: 1_000_000 }),
    }
  }

  private oidc(): AccessSettings['oidc'] {
    const issuer = this.value('OIDC_ISSUER')
    const clientId = this.value('OIDC_CLIENT_ID')
    const clientSecret = this.value('OIDC_CLIENT_SECRET')
    if (!issuer && !clientId && !clientSecret) return undefined
    if (!issuer || !clientId || !clientSecret) {
      throw new ConfigError(
        'OIDC_ISSUER, OIDC_CLIENT_ID and OIDC_CLIENT_SECRET go together, for example OIDC_ISSUER=https://id.example.com with what that provider gave Shipcast. Set all three, or none.',
      )
    }
    const url = this.secureUrl('OIDC_ISSUER', issuer, 'https://id.example.com')
    return {
      name: this.text('OIDC_NAME', url.host),
      issuer: url.href,
      clientId,
      clientSecret,
      scopes: this.text('OIDC_SCOPES', 'openid profile email'),
      rolesClaim: this.text('OIDC_ROLES_CLAIM', 'groups'),
    }
  }

  private githubSignIn(): AccessSettings['github'] {
    const clientId = this.value('GITHUB_OAUTH_CLIENT_ID')
    const clientSecret = this.value('GITHUB_OAUTH_CLIENT_SECRET')
    if (!clientId && !clientSecret) return undefined
    if (!clientId || !clientSecret) {
      throw new ConfigError(
        'GITHUB_OAUTH_CLIENT_ID and GITHUB_OAUTH_CLIENT_SECRET go together: both are in the settings of the OAuth app, for example GITHUB_OAUTH_CLIENT_ID=Ov23liABCDEF. Set both, or none.',
      )
    }
    const given = this.text('GITHUB_OAUTH_URL', 'https://github.com')
    const url = this.secureUrl('GITHUB_OAUTH_URL', given, 'https://github.example.com').origin
    return { clientId, clientSecret, url, apiUrl: this.githubApiUrl() }
  }

  /** A secret is sent there: not in the clear, except on this machine. */
  private secureUrl(name: string, value: string, example: string): URL {
    const url = URL.parse(value)
    const isSecure = url?.protocol === 'https:' || (url?.protocol === 'http:' && isLoopbackHost(url.hostname))
    if (!url || !isSecure || url.search || url.hash || url.username) {
      throw new ConfigError(
        `${name} must be an https:// address, for example ${name}=${example}. It is "${value}".`,
      )
    }
    return url
  }

  private roles(signIn: string | undefined, providers: readonly string[]): AccessSettings['grantsByGroup'] {
    const name = 'ACCESS_ROLES'
    const example = `for example ${name}="platform-team=admin; developers=deployer:acme,acme-labs; staff=viewer"`
    const value = this.value(name)
    if (value === undefined) {
      if (!signIn) return new Map()
      throw new ConfigError(
        `${signIn} lets nobody in without ${name}, which says what a group of the provider (or an organization or team of GitHub, as acme or acme/platform) may do; ${example}.`,
      )
    }
    const groups = parseRoleMapping(value)
    const read = typeof groups === 'string' ? groups : qualifyGroupsByProvider(groups, providers)
    if (typeof read === 'string') throw new ConfigError(`${name} ${read}; ${example}. It is "${value}".`)
    return read
  }

  forge(): 'local' | 'github' {
    const credential = GITHUB_CREDENTIALS.find((name) => this.value(name) !== undefined)
    return this.oneOf('FORGE', ['local', 'github'], credential ? 'github' : 'local')
  }

  github(): GitHubSettings {
    const apiUrl = this.githubApiUrl()
    const credential = this.credential()
    const isServer = !/^api\.(github|[^.]+\.ghe)\.com$/.test(new URL(apiUrl).hostname)
    const writeSpacingMs = this.integer('GITHUB_WRITE_SPACING_MS', 1_000, { min: 0, max: 60_000 })
    if (!isServer && writeSpacingMs < 1_000) {
      throw new ConfigError(
        `GITHUB_WRITE_SPACING_MS must be 1000 or more for ${apiUrl}, as GitHub asks; for example GITHUB_WRITE_SPACING_MS=1000. Less is for Enterprise Server. It is "${writeSpacingMs}".`,
      )
    }
    return {
      apiUrl,
      credential,
      writeSpacingMs,
      enterprise: this.enterprise(isServer, credential.kind),
      proxies: {
        httpProxy: this.proxy('HTTP_PROXY'),
        httpsProxy: this.proxy('HTTPS_PROXY'),
        noProxy: this.value('NO_PROXY') ?? this.value('no_proxy'),
      },
    }
  }

  /** None of these values is shown: all of them are secret, or stand beside one. */
  private credential(): GitHubSettings['credential'] {
    const token = this.value('GITHUB_TOKEN')
    const appId = this.value('GITHUB_APP_ID')
    const keyFile = this.value('GITHUB_APP_PRIVATE_KEY_FILE')
    if (token !== undefined && (appId !== undefined || keyFile !== undefined)) {
      throw new ConfigError(
        'GITHUB_TOKEN and GITHUB_APP_ID with GITHUB_APP_PRIVATE_KEY_FILE are two ways to say who Shipcast is. Set one and leave the other out.',
      )
    }
    if (token !== undefined) {
      if (!/^[!-~]{8,1000}$/.test(token)) {
        throw new ConfigError(
          'GITHUB_TOKEN must be a personal access token, for example GITHUB_TOKEN=github_pat_11ABCDEFG…, without spaces or quotation marks around it.',
        )
      }
      return { kind: 'token', token }
    }
    if (appId === undefined && keyFile === undefined) {
      throw new ConfigError(
        'FORGE=github needs a credential: GITHUB_TOKEN=github_pat_11ABCDEFG…, or GITHUB_APP_ID=123456 with GITHUB_APP_PRIVATE_KEY_FILE=/etc/shipcast/app.pem. Set FORGE=local to do without.',
      )
    }
    if (keyFile === undefined) {
      throw new ConfigError(
        'GITHUB_APP_ID needs GITHUB_APP_PRIVATE_KEY_FILE, the key that the App’s settings let you download, for example GITHUB_APP_PRIVATE_KEY_FILE=/etc/shipcast/app.pem.',
      )
    }
    if (appId === undefined || !/^[A-Za-z0-9.]{1,100}$/.test(appId)) {
      throw new ConfigError(
        'GITHUB_APP_ID must be the App ID or client ID of the GitHub App whose key GITHUB_APP_PRIVATE_KEY_FILE is, for example GITHUB_APP_ID=123456.',
      )
    }
    return { kind: 'app', appId, privateKey: readPrivateKey(keyFile) }
  }

  /** The key comes with an API that is not to be reached in the clear, except on this machine. */
  private githubApiUrl(): string {
    const name = 'GITHUB_API_URL'
    const value = this.text(name, 'https://api.github.com')
    const example = `for example ${name}=https://api.github.com, or ${name}=https://github.example.com/api/v3 for Enterprise Server`
    const url = URL.parse(value)
    if (!url || !/^https?:$/.test(url.protocol) || url.search || url.hash || url.username || url.password) {
      throw new ConfigError(
        `${name} must be the https:// address of GitHub's REST API, without a user, "?" or "#"; ${example}.`,
      )
    }
    if (/^(www\.)?github\.com$/.test(url.hostname)) {
      throw new ConfigError(
        `${name} is the address of GitHub's pages, not of its API; ${example}. It is "${value}".`,
      )
    }
    if (url.protocol === 'http:' && !isLoopbackHost(url.hostname)) {
      throw new ConfigError(
        `${name} must begin with https://, since the credential is sent there; ${example}. It is "${value}".`,
      )
    }
    return url.href.replace(/\/+$/, '')
  }

  private enterprise(isServer: boolean, kind: 'token' | 'app'): GitHubSettings['enterprise'] {
    const slug = this.value('GITHUB_ENTERPRISE')
    const billingEmail = this.value('GITHUB_BILLING_EMAIL')
    if (slug === undefined && billingEmail === undefined) return undefined
    const example = 'for example GITHUB_ENTERPRISE=acme-inc with GITHUB_BILLING_EMAIL=billing@acme.example'
    if (isServer) {
      throw new ConfigError(
        'GITHUB_ENTERPRISE and GITHUB_BILLING_EMAIL are for Enterprise Cloud. Leave them out: Enterprise Server creates organizations without.',
      )
    }
    if (kind === 'app') {
      throw new ConfigError(
        'GITHUB_ENTERPRISE needs GITHUB_TOKEN, a classic token of an enterprise owner: a GitHub App cannot create organizations. Leave GITHUB_ENTERPRISE out.',
      )
    }
    if (slug === undefined || !/^[A-Za-z0-9-]{1,100}$/.test(slug)) {
      throw new ConfigError(`GITHUB_ENTERPRISE must be the name in github.com/enterprises/NAME; ${example}.`)
    }
    if (billingEmail === undefined || !/^[^@\s]+@[^@\s]+$/.test(billingEmail)) {
      throw new ConfigError(
        `GITHUB_ENTERPRISE needs GITHUB_BILLING_EMAIL, where bills for new organizations go; ${example}.`,
      )
    }
    return { slug, billingEmail }
  }

  /** As other programs read it, in capitals or not. Never shown: it may hold a password. */
  private proxy(name: 'HTTP_PROXY' | 'HTTPS_PROXY'): string | undefined {
    const value = this.value(name) ?? this.value(name.toLowerCase())
    if (value === undefined) return undefined
    if (!/^https?:$/.test(URL.parse(value)?.protocol ?? '')) {
      throw new ConfigError(
        `${name} must be the http:// or https:// address of a proxy, for example ${name}=http://proxy.example.com:3128.`,
      )
    }
    return value
  }
}

function readPrivateKey(path: string): string {
  const example =
    'It must be the file that the App’s settings let you download, for example GITHUB_APP_PRIVATE_KEY_FILE=/etc/shipcast/app.pem, readable for the user that runs Shipcast.'
  let key: string
  try {
    key = readFileSync(path, 'utf8')
  } catch (error) {
    const { code = 'unknown error' } = error as NodeJS.ErrnoException
    throw new ConfigError(`GITHUB_APP_PRIVATE_KEY_FILE cannot be read (${code}). ${example}`)
  }
  try {
    if (createPrivateKey(key).asymmetricKeyType === 'rsa') return key
  } catch {
    // said below, without what it was
  }
  throw new ConfigError(`GITHUB_APP_PRIVATE_KEY_FILE holds no RSA private key. ${example}`)
}

function unprotectedAccessMessage(reached: string): string {
  return [
    `${reached} lets others reach Shipcast, and nothing says who may do what. Set one of these, or HOST=127.0.0.1:`,
    '- ACCESS=required: for services, with tokens; make the first with "npm run token -- create --name admin --role admin"',
    '- OIDC_ISSUER, OIDC_CLIENT_ID, OIDC_CLIENT_SECRET and ACCESS_ROLES: people sign in with an OpenID Connect provider',
    '- GITHUB_OAUTH_CLIENT_ID, GITHUB_OAUTH_CLIENT_SECRET and ACCESS_ROLES: people sign in with GitHub',
  ].join('\n')
}

/** As a setting or a URL has it. */
export function isLoopbackHost(name: string): boolean {
  return /^(localhost|127(\.\d{1,3}){3}|::1|\[::1\])$/.test(name)
}

function urlHost(host: string): string {
  if (host === '0.0.0.0' || host === '::') return '127.0.0.1'
  return host.includes(':') ? `[${host}]` : host
}
