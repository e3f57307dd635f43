import { chmod, mkdir, open, stat } from 'node:fs/promises'
import { dirname } from 'node:path'

/** For folders that only the account of the server may enter. */
export const PRIVATE_MODE = 0o700

/** Makes a folder, durably, that may be there already. Those above it are made first when need be. */
export async function ensureFolder(path: string, mode = 0o777): Promise<void> {
  // Not `recursive`: that hides a read-only disk behind ENOENT, and never ends below /proc (Node 24).
  if (!(await ensureOneFolder(path, mode))) {
    await ensureFolder(dirname(path), mode)
    if (!(await ensureOneFolder(path, mode)))
      throw Object.assign(new Error(`${path} cannot be made`), { code: 'ENOENT' })
  }
}

/** Takes away what other accounts may do in a folder. False where the file system does not let us. */
export async function restrictToOwner(path: string): Promise<boolean> {
  if (process.platform === 'win32') return true // has no such modes: folders inherit their rights
  const isClosed = async () => ((await stat(path)).mode & 0o077) === 0
  if (await isClosed()) return true
  await chmod(path, PRIVATE_MODE).catch(() => {}) // looked at below: some file systems only pretend
  return isClosed()
}

/** Makes the names in a folder as durable as the files' bytes. */
export async function syncFolder(path: string): Promise<void> {
  if (process.platform === 'win32') return // has no such call, and journals names itself
  const folder = await open(path, 'r')
  try {
    await folder.sync()
  } finally {
    await folder.close()
  }
}

/** False where the folder above it is absent. */
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
