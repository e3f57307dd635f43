import { realpath } from 'node:fs/promises'
import { join } from 'node:path'
import pg from 'pg'
import {
  type EmbeddedPostgres,
  startEmbeddedPostgres,
} from '../../src/database/embedded/embedded-postgres.ts'
import { createDataFolder, type DataFolder } from './data-folder.ts'
import { signalPostgres } from './processes.ts'
import { TcpRelay } from './tcp-relay.ts'

/**
 * A Postgres for one test, with one TCP address (127.0.0.1) across restarts: a relay in this process forwards
 * to the server's current socket. It can be stopped, killed, frozen and disconnected.
 */
export class RestartablePostgres {
  private readonly folder: DataFolder
  private readonly relay: TcpRelay
  private readonly settings: Record<string, string>
  private postgres: EmbeddedPostgres

  private constructor(
    folder: DataFolder,
    settings: Record<string, string>,
    relay: TcpRelay,
    postgres: EmbeddedPostgres,
  ) {
    this.folder = folder
    this.settings = settings
    this.relay = relay
    this.postgres = postgres
    relay.target = socketPath(postgres)
  }

  static async start(
    settings: Record<string, string> = {},
    folder?: DataFolder,
  ): Promise<RestartablePostgres> {
    folder ??= await createDataFolder()
    const postgres = await startEmbeddedPostgres({ dataDir: folder.path, settings })
    return new RestartablePostgres(folder, settings, await TcpRelay.start(), postgres)
  }

  get password(): string {
    return this.postgres.connection.password
  }

  /** For DATABASE_URL; `options` are added to the query. */
  url(database = 'postgres', options: Record<string, string> = {}): string {
    return relayedUrl(this.relay, this.postgres, database, options)
  }

  /** Runs a statement without the relay. */
  async query<Row extends pg.QueryResultRow>(
    text: string,
    values?: unknown[],
    database = 'postgres',
  ): Promise<Row[]> {
    return queryOnce<Row>({ ...this.postgres.connection, database }, text, values)
  }

  /** Like an operator's update. */
  async restart(): Promise<void> {
    await this.stop()
    await this.startAgain()
  }

  async stop(): Promise<void> {
    await this.postgres.stop()
  }

  async startAgain(): Promise<void> {
    this.postgres = await startEmbeddedPostgres({ dataDir: this.folder.path, settings: this.settings })
    this.relay.target = socketPath(this.postgres)
  }

  /** Kills all processes of the server, like a crash. */
  async kill(): Promise<void> {
    await this.signal('SIGKILL')
    await this.postgres.stop()
  }

  /** The server then accepts connections and statements without responding. */
  async freeze(): Promise<void> {
    await this.signal('SIGSTOP')
  }

  async thaw(): Promise<void> {
    await this.signal('SIGCONT')
  }

  async remove(): Promise<void> {
    await this.thaw()
    this.relay.close()
    await this.postgres.stop()
    await this.folder.remove()
  }

  private async signal(name: NodeJS.Signals): Promise<void> {
    await signalPostgres(await realpath(join(this.folder.path, 'postgres-18')), name)
  }
}

export function relayedUrl(
  { port }: TcpRelay,
  { connection: { user, password } }: EmbeddedPostgres,
  database = 'postgres',
  options: Record<string, string> = {},
): string {
  const query = new URLSearchParams({ sslmode: 'disable', ...options }).toString().replaceAll('+', '%20')
  return `postgres://${user}:${password}@127.0.0.1:${port}/${database}?${query}`
}

export async function queryOnce<Row extends pg.QueryResultRow>(
  connection: pg.ClientConfig,
  text: string,
  values?: unknown[],
): Promise<Row[]> {
  const client = new pg.Client({ ...connection, ssl: false })
  client.on('error', () => undefined)
  await client.connect()
  try {
    return (await client.query<Row>(text, values)).rows
  } finally {
    await client.end()
  }
}

export function socketPath({ connection: { host, port } }: EmbeddedPostgres): string {
  return join(host, `.s.PGSQL.${port}`)
}
