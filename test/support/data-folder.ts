import { chmod, mkdtemp, realpath, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

export interface DataFolder {
  /** For DATA_DIR. */
  readonly path: string
  /** Call it when nothing uses the folder any more. */
  remove(): Promise<void>
}

/**
 * A new folder that every account may enter: for root, an embedded Postgres below a closed one lies in
 * /var/lib/shipcast.
 */
export async function createDataFolder(): Promise<DataFolder> {
  const path = await realpath(await mkdtemp(join(tmpdir(), 'shipcast-data-')))
  await chmod(path, 0o755)
  return { path, remove: () => removeDataFolder(path) }
}

/** Removes a data folder with its database, wherever that lies. */
export async function removeDataFolder(path: string): Promise<void> {
  const cluster = await realpath(join(path, 'postgres-18')).catch(() => undefined)
  if (cluster) await rm(cluster, { recursive: true, force: true })
  if (cluster) await rm(`${cluster}.link`, { force: true })
  await rm(path, { recursive: true, force: true })
}
