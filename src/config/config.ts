import { resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { z } from 'zod'
import { StartupError } from '../errors.ts'
import { type AccessSettings, accessSchema } from './access.config.ts'
import {
  combine,
  describeIssues,
  integer,
  oneOf,
  rejectSettings,
  rejectValue,
  text,
  textOr,
} from './env-values.ts'
import { type ForgeSettings, forgeSchema, type GitHubSettings } from './github.config.ts'
import { type NetworkSettings, networkSchema } from './network.config.ts'

/** A setting that cannot be used. The message names the variable, the problem and a good value. */
export class ConfigError extends StartupError {
  override readonly name = 'ConfigError'
}

const LOG_LEVELS = ['error', 'warn', 'info', 'debug'] as const
export type LogLevel = (typeof LOG_LEVELS)[number]

/** Shipcast's own, independent of the working directory. */
const BUNDLED_TEMPLATES_DIR = fileURLToPath(new URL('../../templates', import.meta.url))

/**
 * The environment, read once at start. Every setting has a type, a unit and a default. See `.env.example`.
 */
export class Config implements NetworkSettings, ForgeSettings {
  readonly host: string
  readonly port: number
  readonly publicUrl: string
  readonly trustedProxies: readonly string[]
  /** Absolute path; holds the data of the embedded Postgres and the local forge. */
  readonly dataDir: string
  /** `postgres://…`; undefined: the embedded Postgres below `dataDir`. */
  readonly databaseUrl: string | undefined
  /** The same database, bypassing its pooler, for LISTEN; undefined: `databaseUrl`. */
  readonly databaseListenUrl: string | undefined
  readonly forge: 'local' | 'github'
  readonly github: GitHubSettings | undefined
  /** Absolute path; each subfolder is a template. */
  readonly templatesDir: string
  /** How many deployments this node runs at once; the rest stay `QUEUED`. */
  readonly deployConcurrency: number
  /** Milliseconds without a heartbeat until another runner takes over. Three heartbeats fit into it. */
  readonly leaseMs: number
  /** Milliseconds over which a node that shuts down closes its sockets. */
  readonly drainMs: number
  /** Days for which a finished deployment keeps its contents, and so can be retried. */
  readonly retentionDays: number
  readonly logLevel: LogLevel
  readonly access: AccessSettings

  /** @throws ConfigError with all problems at once */
  constructor(env: NodeJS.ProcessEnv) {
    const { data, error } = environmentSchema.safeParse(env)
    if (error) throw new ConfigError(describeIssues(error).join('\n'))
    const { network, server, database, forge, access } = data
    this.host = network.host
    this.port = network.port
    this.publicUrl = network.publicUrl
    this.trustedProxies = network.trustedProxies
    this.dataDir = resolve(server.DATA_DIR)
    this.databaseUrl = database.DATABASE_URL
    this.databaseListenUrl = database.DATABASE_LISTEN_URL
    this.forge = forge.forge
    this.github = forge.github
    this.templatesDir = resolve(server.TEMPLATES_DIR)
    this.deployConcurrency = server.DEPLOY_CONCURRENCY
    this.leaseMs = server.LEASE_MS
    this.drainMs = server.DRAIN_MS
    this.retentionDays = server.RETENTION_DAYS
    this.logLevel = server.LOG_LEVEL ?? 'info'
    this.access = access
  }
}

const serverSchema = z.object({
  DATA_DIR: textOr('./data'),
  TEMPLATES_DIR: textOr(BUNDLED_TEMPLATES_DIR),
  DEPLOY_CONCURRENCY: integer({ defaultValue: 10, min: 1, max: 1_000 }),
  LEASE_MS: integer({ defaultValue: 6_000, min: 500, max: 600_000 }),
  DRAIN_MS: integer({ defaultValue: 5_000, min: 0, max: 600_000 }),
  RETENTION_DAYS: integer({ defaultValue: 30, min: 1, max: 36_500 }),
  LOG_LEVEL: oneOf(LOG_LEVELS, 'info'),
})

/** `database/` parses its parameters. Never repeated in a message: it may contain a password. */
const postgresUrl = text.transform((value, context) => {
  if (value === undefined) return undefined
  // libpq's form for a Unix socket has no host: postgres://user@/database?host=/folder
  const withHost = value.replaceAll(' ', '%20').replace('@/', '@localhost/')
  if (/^postgres(ql)?:\/\//.test(value) && URL.canParse(withHost)) return value
  return rejectValue(context, {
    requirement:
      'must be an address that starts with postgres://, its password percent-encoded, or unset for the embedded Postgres',
    example: 'postgres://user:password@host:5432/shipcast',
    isSecret: true,
  })
})

const databaseSchema = z
  .object({ DATABASE_URL: postgresUrl, DATABASE_LISTEN_URL: postgresUrl })
  .transform((env, context) => {
    if (env.DATABASE_LISTEN_URL === undefined || env.DATABASE_URL !== undefined) return env
    return rejectSettings(context, 'DATABASE_LISTEN_URL requires DATABASE_URL. Set both, or neither.')
  })

const environmentSchema = combine({
  network: networkSchema,
  server: serverSchema,
  database: databaseSchema,
  forge: forgeSchema,
  access: accessSchema,
})
