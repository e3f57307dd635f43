import { resolve } from 'node:path'

/** A setting that cannot be used. The message names the variable, says what is wrong with it, and shows a good value. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError'
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
  readonly forge: 'local'
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

  /** @throws ConfigError */
  constructor(env: NodeJS.ProcessEnv) {
    const read = new Settings(env)
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
    this.templatesDir = resolve(read.text('TEMPLATES_DIR', './templates'))
    this.deployConcurrency = read.integer('DEPLOY_CONCURRENCY', 10, { min: 1, max: 1_000 })
    this.leaseMs = read.integer('LEASE_MS', 6_000, { min: 500, max: 600_000 })
    this.drainMs = read.integer('DRAIN_MS', 5_000, { min: 0, max: 600_000 })
    this.retentionDays = read.integer('RETENTION_DAYS', 30, { min: 1, max: 36_500 })
    this.logLevel = read.oneOf('LOG_LEVEL', LOG_LEVELS, 'info')
  }
}

const LOG_LEVELS = ['error', 'warn', 'info', 'debug'] as const
export type LogLevel = (typeof LOG_LEVELS)[number]

const GITHUB_CREDENTIALS = ['GITHUB_TOKEN', 'GITHUB_APP_ID'] as const

class Settings {
  // No parameter property: tests and benches run this file as it is.
  private readonly env: NodeJS.ProcessEnv

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
    if (!/^postgres(ql)?:\/\//.test(value) || !URL.canParse(value.replaceAll(' ', '%20'))) {
      throw new ConfigError(
        `${name} must be an address that starts with postgres://, its password percent-encoded, for example ${example}. Leave it out for the embedded Postgres.`,
      )
    }
    return value
  }

  forge(): 'local' {
    const credential = GITHUB_CREDENTIALS.find((name) => this.value(name) !== undefined)
    const forge = this.oneOf('FORGE', ['local', 'github'], credential ? 'github' : 'local')
    if (forge === 'github') {
      throw new ConfigError(
        `${this.value('FORGE') ? 'FORGE=github' : `${credential} (which means FORGE=github)`} cannot be used yet: this version has only the local forge. Set FORGE=local.`,
      )
    }
    return forge
  }
}

function urlHost(host: string): string {
  if (host === '0.0.0.0' || host === '::') return '127.0.0.1'
  return host.includes(':') ? `[${host}]` : host
}
