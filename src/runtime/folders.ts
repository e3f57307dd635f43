import { chmod, mkdir, open, stat } from 'node:fs/promises'
import { dirname } from 'node:path'

/** For folders that only the server's account can enter. */
export const PRIVATE_MODE = 0o700

/** Creates a folder durably, with the folders above it, unless it exists. */
export async function ensureFolder(path: string, mode = 0o777): Promise<void> {
  // Not `recursive`, which reports a read-only disk as ENOENT and never returns below /proc (Node 24).
  if (!(await ensureOneFolder(path, mode))) {
    await ensureFolder(dirname(path), mode)
    if (!(await ensureOneFolder(path, mode)))
      throw Object.assign(new Error(`${path} cannot be created`), { code: 'ENOENT' })
  }
}

/** Removes other accounts' permissions on a folder. False if the file system does not support that. */
export async function restrictToOwner(path: string): Promise<boolean> {
  if (process.platform === 'win32') return true // No modes there: folders inherit their permissions.
  const isRestricted = async () => ((await stat(path)).mode & 0o077) === 0
  if (await isRestricted()) return true
  await chmod(path, PRIVATE_MODE).catch(() => {}) // Checked below: some file systems ignore it.
  return isRestricted()
}

/** Makes the names in a folder durable (fsync). */
export async function syncFolder(path: string): Promise<void> {
  if (process.platform === 'win32') return // Windows has no such call; its file system journals names.
  const folder = await open(path, 'r')
  try {
    await folder.sync()
  } finally {
    await folder.close()
  }
}

/** False if the folder above it does not exist. */
async function ensureOneFolder(path: string, mode: number): Promise<boolean> {
  try {
    await mkdir(path, mode)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'EEXIST' && (await stat(path)).isDirectory()) return true
    if (code === 'ENOENT' && dirname(path) !== path) return false
    throw error
  }
  await syncFolder(dirname(path))
  return true
}
