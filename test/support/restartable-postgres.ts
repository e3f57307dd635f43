import { once } from 'node:events'
import { realpath } from 'node:fs/promises'
import { createConnection, createServer, type Server, type Socket } from 'node:net'
import { join } from 'node:path'
import pg from 'pg'
import { type EmbeddedPostgres, startEmbeddedPostgres } from '../../src/database/embedded-postgres.ts'
import { createDataFolder, type DataFolder } from './data-folder.ts'
import { postgresProcesses } from './processes.ts'

/**
 * A Postgres of the test's own, at one TCP address (127.0.0.1) through restarts: a relay in this process leads to the
 * server's present socket. So it can be stopped, killed, frozen, and cut off without a word.
 */
export class RestartablePostgres {
  readonly port: number
  private readonly folder: DataFolder
  private readonly relay: Server
  private readonly sockets = new Set<Socket>()
  private readonly settings: Record<string, string>
  private postgres: EmbeddedPostgres
  private target: string

  private constructor(
    port: number,
    folder: DataFolder,
    settings: Record<string, string>,
    relay: Server,
    postgres: EmbeddedPostgres,
  ) {
    this.port = port
    this.folder = folder
    this.settings = settings
    this.relay = relay
    this.postgres = postgres
    this.target = socketOf(postgres)
  }

  static async start(settings: Record<string, string> = {}): Promise<RestartablePostgres> {
    const folder = await createDataFolder()
    const postgres = await startEmbeddedPostgres({ dataDir: folder.path, settings })
    const relay = createServer().listen(0, '127.0.0.1')
    await once(relay, 'listening')
    const address = relay.address()
    if (address === null || typeof address === 'string') throw new Error('No port was given.')
    const server = new RestartablePostgres(address.port, folder, settings, relay, postgres)
    relay.on('connection', (socket) => server.lead(socket))
    return server
  }

  /** For DATABASE_URL; `options` are added to the query. */
  url(database = 'postgres', options: Record<string, string> = {}): string {
    const query = new URLSearchParams({ sslmode: 'disable', ...options }).toString().replaceAll('+', '%20')
    return `postgres://shipcast:s3cret@127.0.0.1:${this.port}/${database}?${query}`
  }

  /** Past the relay, to look at what is stored. */
  async query<Row extends pg.QueryResultRow>(
    text: string,
    values?: unknown[],
    database = 'postgres',
  ): Promise<Row[]> {
    const client = new pg.Client({ ...this.postgres.connection, database, ssl: false })
    client.on('error', () => undefined)
    await client.connect()
    try {
      return (await client.query<Row>(text, values)).rows
    } finally {
      await client.end()
    }
  }

  /** As an operator does for an update. */
  async restart(): Promise<void> {
    await this.stop()
    await this.startAgain()
  }

  async stop(): Promise<void> {
    await this.postgres.stop()
  }

  async startAgain(): Promise<void> {
    this.postgres = await startEmbeddedPostgres({ dataDir: this.folder.path, settings: this.settings })
    this.target = socketOf(this.postgres)
  }

  /** Every process of it, as at a crash. */
  async kill(): Promise<void> {
    await this.signal('SIGKILL')
    await this.postgres.stop()
  }

  /** It takes connections and statements, and answers nothing. */
  async freeze(): Promise<void> {
    await this.signal('SIGSTOP')
  }

  async thaw(): Promise<void> {
    await this.signal('SIGCONT')
  }

  async remove(): Promise<void> {
    await this.thaw()
    for (const socket of this.sockets) socket.destroy()
    this.relay.close()
    await this.postgres.stop()
    await this.folder.remove()
  }

  private lead(socket: Socket): void {
    const onward = createConnection(this.target)
    for (const [from, to] of [
      [socket, onward],
      [onward, socket],
    ] as const) {
      this.sockets.add(from)
      from.setNoDelay(true)
      from.pipe(to)
      from.on('error', () => to.destroy())
      from.on('close', () => {
        this.sockets.delete(from)
        to.destroy()
      })
    }
  }

  private async signal(name: NodeJS.Signals): Promise<void> {
    const cluster = await realpath(join(this.folder.path, 'postgres-18'))
    for (const pid of await postgresProcesses(cluster)) {
      try {
        process.kill(pid, name)
      } catch {
        // It has just ended.
      }
    }
  }
}

function socketOf({ connection: { host, port } }: EmbeddedPostgres): string {
  return join(host, `.s.PGSQL.${port}`)
}
