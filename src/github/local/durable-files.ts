import { link, lstat, open, readdir, readFile, rename, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { ensureFolder, PRIVATE_MODE, syncFolder } from '../../runtime/folders.ts'
import { hasCode } from './storage-errors.ts'
import { newWriterTag, writerState } from './writer-tag.ts'

/** What a writer has left of whom nothing can be known is taken for abandoned after this time. */
const UNKNOWN_WRITER_TIMEOUT_MS = 60 * 60 * 1000

/** Null where there is no such file. */
export async function readIfExists(path: string): Promise<string | null> {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    if (hasCode(error, 'ENOENT', 'ENOTDIR', 'EISDIR')) return null
    throw error
  }
}

/** Writes a file that is not there yet; when it resolves, the bytes are on the disk. The name is after `syncFolder`. */
export async function writeNewFile(
  path: string,
  content: string | Uint8Array | AsyncIterable<Uint8Array>,
  mode = 0o600,
): Promise<void> {
  const file = await open(path, 'wx', mode)
  try {
    await file.writeFile(content)
    await file.sync()
  } finally {
    await file.close()
  }
}

/** Puts the content in the place of what is there: whoever reads sees the old or the new, whole. */
export async function replaceFile(path: string, content: string, temporaryFolder: string): Promise<void> {
  const temporary = join(temporaryFolder, await newWriterTag())
  try {
    await writeNewFile(temporary, content)
    await rename(temporary, path)
  } catch (error) {
    await rm(temporary, { force: true })
    throw error
  }
  await syncFolder(dirname(path))
}

/** Creates the file with its content in one move. False when there is one already, whoever made it. */
export async function createFile(path: string, content: string, temporaryFolder: string): Promise<boolean> {
  const temporary = join(temporaryFolder, await newWriterTag())
  try {
    await writeNewFile(temporary, content)
    await link(temporary, path)
  } catch (error) {
    if (hasCode(error, 'EEXIST')) return false
    throw error
  } finally {
    await rm(temporary, { force: true })
  }
  await syncFolder(dirname(path))
  return true
}

/**
 * Removes what dead processes left in a folder of temporary files, each named by the mark of its writer. Makes the
 * folder when it is gone: copies and backups often leave empty folders out.
 */
export async function sweepTemporaryFolder(path: string): Promise<void> {
  await ensureFolder(path, PRIVATE_MODE)
  for (const name of await readdir(path)) {
    const writer = await writerState(name)
    if (writer === 'running') continue
    if (writer === 'unknown' && !(await isOlderThan(join(path, name), UNKNOWN_WRITER_TIMEOUT_MS))) continue
    await rm(join(path, name), { recursive: true, force: true })
  }
}

export async function isOlderThan(path: string, ms: number): Promise<boolean> {
  try {
    return Date.now() - (await lstat(path)).mtimeMs > ms
  } catch (error) {
    if (hasCode(error, 'ENOENT')) return false
    throw error
  }
}
