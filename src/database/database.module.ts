import { type DynamicModule, Inject, Logger, Module, type OnApplicationShutdown } from '@nestjs/common'
import { ConfigError } from '../config.ts'
import { Database } from './database.ts'
import { DatabaseUnavailable } from './database-unavailable.ts'
import { type Migration, migrate } from './migrations.ts'

export interface DatabaseModuleOptions {
  /** `postgres://…`; without it an embedded Postgres runs in dataDir. */
  readonly url?: string | undefined
  /** The same database by a way on which LISTEN works, where `url` leads through a pooler. */
  readonly listenUrl?: string | undefined
  readonly dataDir: string
  readonly migrations: readonly Migration[]
}

/** Provides the Database, open and migrated, to every module. */
@Module({})
export class DatabaseModule implements OnApplicationShutdown {
  constructor(@Inject(Database) private readonly database: Database) {}

  static forRoot(options: DatabaseModuleOptions): DynamicModule {
    return {
      module: DatabaseModule,
      global: true,
      providers: [{ provide: Database, useFactory: () => open(options) }],
      exports: [Database],
    }
  }

  // The last of Nest's hooks: others use the database up to beforeApplicationShutdown.
  async onApplicationShutdown(): Promise<void> {
    await this.database.close()
  }
}

async function open({ url, listenUrl, dataDir, migrations }: DatabaseModuleOptions): Promise<Database> {
  const logger = new Logger(Database.name)
  const database = await Database.open({ url, listenUrl, dataDir, log: (line) => logger.log(line) }).catch(
    (error) => {
      throw url !== undefined && error instanceof DatabaseUnavailable ? unreachable(error) : error
    },
  )
  try {
    await migrate(database, migrations)
    return database
  } catch (error) {
    await database.close()
    throw error
  }
}

function unreachable(error: DatabaseUnavailable): ConfigError {
  return new ConfigError(
    `DATABASE_URL cannot be used. ${error.message}. Start that server or mend the address, for example DATABASE_URL=postgres://user:password@host:5432/shipcast; leave it out for the embedded Postgres.`,
    { cause: error },
  )
}
