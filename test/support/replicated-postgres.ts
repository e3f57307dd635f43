import { execFile } from 'node:child_process'
import { appendFile, copyFile, realpath, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type pg from 'pg'
import {
  type EmbeddedPostgres,
  startEmbeddedPostgres,
} from '../../src/database/embedded/embedded-postgres.ts'
import { createDataFolder, type DataFolder } from './data-folder.ts'
import { signalPostgres, waitUntil } from './processes.ts'
import { queryOnce, relayedUrl, socketPath } from './restartable-postgres.ts'
import { TcpRelay } from './tcp-relay.ts'

/**
 * A primary and a standby with streaming replication behind one address, like a managed database. The standby
 * starts with a copy of the primary's folder.
 */
export class ReplicatedPostgres {
  private readonly folders: DataFolder[]
  private readonly relay: TcpRelay
  private readonly primary: EmbeddedPostgres
  private readonly standby: EmbeddedPostgres
  private current: EmbeddedPostgres

  private constructor(
    folders: DataFolder[],
    relay: TcpRelay,
    primary: EmbeddedPostgres,
    standby: EmbeddedPostgres,
  ) {
    this.folders = folders
    this.relay = relay
    this.primary = primary
    this.standby = standby
    this.current = primary
    relay.target = socketPath(primary)
  }

  /** `isSynchronous`: commits wait for the standby. */
  static async start({ isSynchronous }: { isSynchronous: boolean }): Promise<ReplicatedPostgres> {
    const [original, copy] = [await createDataFolder(), await createDataFolder()]
    await (await startEmbeddedPostgres({ dataDir: original.path })).stop()
    await promisify(execFile)('cp', ['-a', await realpath(join(original.path, 'postgres-18')), copy.path])
    const primary = await startEmbeddedPostgres({ dataDir: original.path })
    const { host, port, user, password } = primary.connection
    await copyFile(join(original.path, 'postgres-password'), join(copy.path, 'postgres-password'))
    await writeFile(join(copy.path, 'postgres-18', 'standby.signal'), '')
    await appendFile(
      join(copy.path, 'postgres-18', 'postgresql.auto.conf'),
      `primary_conninfo = 'host=${host} port=${port} user=${user} password=${password}'\n`,
    )
    const standby = await startEmbeddedPostgres({ dataDir: copy.path })
    const replicated = new ReplicatedPostgres([original, copy], await TcpRelay.start(), primary, standby)
    await waitUntil(
      async () =>
        (await replicated.query(`select from pg_stat_replication where state = 'streaming'`)).length === 1,
      'the standby replicates',
    )
    if (isSynchronous) {
      await replicated.query(`alter system set synchronous_standby_names = '*'`)
      await replicated.query('select pg_reload_conf()')
      await waitUntil(
        async () =>
          (await replicated.query(`select from pg_stat_replication where sync_state = 'sync'`)).length === 1,
        'commits wait for the standby',
      )
    }
    return replicated
  }

  /** For DATABASE_URL; `options` are added to the query. */
  url(database = 'postgres', options: Record<string, string> = {}): string {
    return relayedUrl(this.relay, this.current, database, options)
  }

  /** Runs a statement on the current primary. */
  query<Row extends pg.QueryResultRow>(text: string, values?: unknown[]): Promise<Row[]> {
    return queryOnce<Row>(this.current.connection, text, values)
  }

  /** Ends the replication. */
  async disconnectStandby(): Promise<void> {
    const onStandby = (text: string) => queryOnce(this.standby.connection, text)
    await onStandby('alter system reset primary_conninfo')
    await onStandby('select pg_reload_conf()')
    await waitUntil(
      async () => (await onStandby('select from pg_stat_wal_receiver')).length === 0,
      'the standby receives nothing',
    )
  }

  /**
   * Like the loss of the primary's machine: the address now leads to the standby, which is
   * read-only until promotion.
   */
  async killPrimary(): Promise<void> {
    this.relay.target = socketPath(this.standby)
    await signalPostgres(await realpath(join(this.folders[0]!.path, 'postgres-18')), 'SIGKILL')
    await this.primary.stop()
    this.current = this.standby
  }

  async promoteStandby(): Promise<void> {
    await this.query('select pg_promote()')
  }

  async remove(): Promise<void> {
    this.relay.close()
    await Promise.all([this.primary.stop(), this.standby.stop()])
    for (const folder of this.folders) await folder.remove()
  }
}
