import { chmod, mkdtemp, realpath, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

export interface DataFolder {
  /** For DATA_DIR. */
  readonly path: string
  /** To be called once no process uses the folder any more. */
  remove(): Promise<void>
}

/**
 * A new folder that every account can enter: otherwise, root's embedded Postgres would use /var/lib/shipcast.
 */
export async function createDataFolder(): Promise<DataFolder> {
  const path = await realpath(await mkdtemp(join(tmpdir(), 'shipcast-data-')))
  await chmod(path, 0o755)
  return { path, remove: () => removeDataFolder(path) }
}

/** Removes a data folder and its database, wherever that is. */
export async function removeDataFolder(path: string): Promise<void> {
  const pgData = await realpath(join(path, 'postgres-18')).catch(() => undefined)
  if (pgData) await rm(pgData, { recursive: true, force: true })
  if (pgData) await rm(`${pgData}.link`, { force: true })
  await rm(path, { recursive: true, force: true })
}
