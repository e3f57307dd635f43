import { type DynamicModule, Inject, Logger, Module, type OnApplicationShutdown } from '@nestjs/common'
import pg from 'pg'
import { ConfigError } from '../config/config.ts'
import { Database } from './database.ts'
import { DatabaseUnavailableError } from './errors.ts'
import { migrate } from './migrate.ts'

interface DatabaseModuleOptions {
  /** `postgres://…`; without it, an embedded Postgres runs in dataDir. */
  readonly url?: string | undefined
  /** The same database without the pooler in front of it: LISTEN requires a session. */
  readonly listenUrl?: string | undefined
  readonly dataDir: string
}

/** Provides the open and migrated Database to every module. */
@Module({})
export class DatabaseModule implements OnApplicationShutdown {
  constructor(@Inject(Database) private readonly database: Database) {}

  static forRoot(options: DatabaseModuleOptions): DynamicModule {
    return {
      module: DatabaseModule,
      global: true,
      providers: [{ provide: Database, useFactory: () => openDatabase(options) }],
      exports: [Database],
    }
  }

  // The last of Nest's hooks: other modules use the database until beforeApplicationShutdown.
  async onApplicationShutdown(): Promise<void> {
    await this.database.close()
  }
}

async function openDatabase({ url, listenUrl, dataDir }: DatabaseModuleOptions): Promise<Database> {
  const logger = new Logger(Database.name)
  const database = await Database.open({ url, listenUrl, dataDir, log: (line) => logger.log(line) }).catch(
    (error) => {
      throw url !== undefined && error instanceof DatabaseUnavailableError ? unreachableError(error) : error
    },
  )
  try {
    await migrate(database)
    return database
  } catch (error) {
    await database.close()
    throw error instanceof pg.DatabaseError && error.code === '42501'
      ? insufficientPrivilegeError(error)
      : error
  }
}

function insufficientPrivilegeError(error: pg.DatabaseError): ConfigError {
  return new ConfigError(
    `DATABASE_URL cannot be used. Its user has no access to the tables in the schema (${error.message}): use the role that created them, or run as a superuser: reassign owned by … to …;`,
    { cause: error },
  )
}

function unreachableError(error: DatabaseUnavailableError): ConfigError {
  return new ConfigError(`DATABASE_URL cannot be used. ${error.message}. ${adviceFor(error.cause)}`, {
    cause: error,
  })
}

const EXAMPLE_SETTING = 'DATABASE_URL=postgres://user:password@host:5432/shipcast'

/** Uses the codes of Node's TLS and of PostgreSQL (appendix A): messages depend on the server's language. */
function adviceFor(cause: unknown): string {
  const { code = '', message = '' } = cause as { code?: string; message?: string }
  if (/^(SELF_SIGNED_CERT|DEPTH_ZERO_SELF|UNABLE_TO_(GET_ISSUER|VERIFY))/.test(code)) {
    return 'The certificate is signed by an authority that this machine does not trust. Name its file, for example sslrootcert=/etc/ssl/db-ca.pem.'
  }
  if (code === 'ERR_TLS_CERT_ALTNAME_INVALID') {
    return 'The certificate is for another host name. Use a name that it lists, or sslmode=verify-ca with sslrootcert, which does not check the name.'
  }
  if (/^CERT_/.test(code)) return "Renew the server's certificate, or set this machine's clock."
  if (message === 'The server does not support SSL connections') {
    return 'Turn on ssl on the server, or omit sslmode if the network is trusted.'
  }
  if (/SSL|TLS|ssl/.test(code)) {
    return 'The TLS handshake failed. Check the log of the server, and sslcert and sslkey if it requires a client certificate.'
  }
  switch (code) {
    case '28000':
      return 'The server rejects this user from this address. Add sslmode=require or verify-full if it requires encryption, and sslcert with sslkey if it requires a certificate; otherwise change its pg_hba.conf.'
    case '28P01':
      return `Check user and password; special characters must be percent-encoded, for example ${EXAMPLE_SETTING}.`
    case '3D000':
      return 'Create that database, or name another one at the end of the address.'
    case '42501':
      return 'Only a superuser can set a default of this role: alter role … reset session_replication_role.'
    case '42P05':
    case '26000':
      return 'Use PgBouncer 1.21 or newer with max_prepared_statements = 200, a pooler in session mode, or the address of the database itself.'
    case '53300':
      return 'Raise max_connections or the connection limit of the role, or lower pool_max.'
    default:
      return `Start that server or correct the address, for example ${EXAMPLE_SETTING}; omit DATABASE_URL for the embedded Postgres.`
  }
}
