import { mkdir, open, stat } from 'node:fs/promises'
import { dirname } from 'node:path'

/** Makes a folder, durably, that may be there already. Those above it are made first when need be. */
export async function makeFolder(path: string): Promise<void> {
  // Not `recursive`: that hides a read-only disk behind ENOENT, and never ends below /proc (Node 24).
  if (!(await makeOne(path))) {
    await makeFolder(dirname(path))
    if (!(await makeOne(path))) throw Object.assign(new Error(`${path} cannot be made`), { code: 'ENOENT' })
  }
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
async function makeOne(path: string): Promise<boolean> {
  try {
    await mkdir(path)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'EEXIST' && (await stat(path)).isDirectory()) return true
    if (code === 'ENOENT' && dirname(path) !== path) return false
    throw error
  }
  await syncFolder(dirname(path))
  return true
}
