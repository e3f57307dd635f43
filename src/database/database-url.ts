import pg from 'pg'
import { StartupError } from '../errors.ts'

/**
 * A `postgres://` URL that cannot be used. The message never contains the URL, which can contain a password.
 */
export class DatabaseUrlError extends StartupError {
  override readonly name = 'DatabaseUrlError'
}

/** The settings in a `postgres://` URL. */
export interface DatabaseSettings {
  /** For `pg`: address, user and encryption. */
  readonly config: pg.ClientConfig
  /** Maximum of the pool. Four more are dedicated: runner, heartbeats, health checks, LISTEN. */
  readonly poolSize: number
  readonly connectTimeoutMs: number
}

const POOL_SIZE = { name: 'pool_max', defaultValue: 10, min: 2, max: 1_000 }
/** Seconds, as in libpq. */
const CONNECT_TIMEOUT = { name: 'connect_timeout', defaultValue: 10, min: 1, max: 60 }

/** Parameters of libpq that `pg` supports (PostgreSQL manual, 32.1.2 Parameter Key Words). */
const LIBPQ_PARAMETERS = [
  'host',
  'port',
  'user',
  'password',
  'sslmode',
  'sslrootcert',
  'sslcert',
  'sslkey',
  'sslnegotiation',
  'options',
  'application_name',
]
/** Without "prefer" and "allow", which do not guarantee encryption. */
const SSL_MODES = ['disable', 'require', 'verify-ca', 'verify-full']

export const DEFAULT_SETTINGS = {
  poolSize: POOL_SIZE.defaultValue,
  connectTimeoutMs: CONNECT_TIMEOUT.defaultValue * 1_000,
} as const

/**
 * Parses `postgres://user:password@host:port/database?…`, with libpq's `sslmode`, `sslrootcert`, `sslcert`,
 * `sslkey`, `connect_timeout` (seconds) and `channel_binding`, and our own `pool_max`. `sslmode=require`
 * encrypts without verifying the server, `verify-full` verifies it; without `sslmode` nothing is encrypted.
 * @throws DatabaseUrlError
 */
export function parseDatabaseUrl(url: string, variable = 'DATABASE_URL'): DatabaseSettings {
  const [address = '', query = ''] = url.split(/\?(.*)/s)
  const parameters = new URLSearchParams(query)
  const consume = (name: string) => {
    const value = parameters.get(name) ?? undefined
    parameters.delete(name)
    return value
  }
  const poolSize = parseInteger(variable, POOL_SIZE, consume(POOL_SIZE.name))
  const connectTimeoutMs = parseInteger(variable, CONNECT_TIMEOUT, consume(CONNECT_TIMEOUT.name)) * 1_000
  const channelBinding = consume('channel_binding')
  for (const name of parameters.keys()) {
    if (LIBPQ_PARAMETERS.includes(name)) continue
    // An "@" belongs before the "?": these are not parameters but the rest of a password.
    if (query.includes('@')) throw invalidUrlError(variable, NOT_A_URL)
    const known = [...LIBPQ_PARAMETERS, POOL_SIZE.name, CONNECT_TIMEOUT.name, 'channel_binding'].join(', ')
    throw new DatabaseUrlError(`${variable} has an unknown parameter "${name}". Known parameters: ${known}.`)
  }
  const sslMode = parameters.get('sslmode')
  if (sslMode !== null && !SSL_MODES.includes(sslMode)) {
    throw new DatabaseUrlError(
      `${variable} has sslmode=${sslMode}; it must be one of ${SSL_MODES.join(', ')}, for example sslmode=verify-full.`,
    )
  }
  if (sslMode === 'verify-ca' && !parameters.has('sslrootcert')) {
    throw new DatabaseUrlError(
      `${variable} has sslmode=verify-ca without sslrootcert. Name the file of your certificate authority, for example sslrootcert=/etc/ssl/db-ca.pem, or use sslmode=verify-full.`,
    )
  }
  // Otherwise `pg` treats all modes as "verify-full".
  if (sslMode !== null) parameters.set('uselibpqcompat', 'true')
  const rest = parameters.toString()
  const config: pg.ClientConfig = {
    connectionString: rest ? `${address}?${rest}` : address,
    ...(channelBinding !== undefined && channelBinding !== 'disable' && { enableChannelBinding: true }),
  }
  assertValid(variable, config)
  return { config, poolSize, connectTimeoutMs }
}

function assertValid(variable: string, config: pg.ClientConfig): void {
  try {
    new pg.Client(config)
  } catch (error) {
    const { code, path } = error as { code?: unknown; path?: unknown }
    const isFile = code === 'ENOENT' || code === 'EACCES'
    throw invalidUrlError(variable, isFile ? `names a file that cannot be read: ${String(path)}` : NOT_A_URL)
  }
}

const NOT_A_URL = 'is not a URL; a password with special characters must be percent-encoded'

function invalidUrlError(variable: string, reason: string): DatabaseUrlError {
  return new DatabaseUrlError(
    `${variable} ${reason}. A good value: ${variable}=postgres://user:password@host:5432/shipcast?sslmode=verify-full`,
  )
}

function parseInteger(
  variable: string,
  { name, defaultValue, min, max }: typeof POOL_SIZE,
  value: string | undefined,
): number {
  if (value === undefined) return defaultValue
  const number = /^\d+$/.test(value) ? Number(value) : Number.NaN
  if (number >= min && number <= max) return number
  throw new DatabaseUrlError(
    `${variable} has ${name}=${value}; it must be a whole number from ${min} to ${max}, for example ${name}=${defaultValue}.`,
  )
}
