import { createHash, randomBytes } from 'node:crypto'
import { readFileSync, readlinkSync } from 'node:fs'
import { link, lstat, open, readdir, readFile, rename, rm } from 'node:fs/promises'
import { hostname } from 'node:os'
import { dirname, join } from 'node:path'
import { ensureFolder, PRIVATE_MODE, syncFolder } from '../../runtime/folders.ts'
import { isProcessAlive } from '../../runtime/process-alive.ts'
import { hasCode } from './storage-errors.ts'

/** Temporary files of writers whose state is unknown are abandoned after this time. */
const UNKNOWN_WRITER_TIMEOUT_MS = 60 * 60 * 1000

/** Null if the file does not exist. */
export async function readIfExists(path: string): Promise<string | null> {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    if (hasCode(error, 'ENOENT', 'ENOTDIR', 'EISDIR')) return null
    throw error
  }
}

/** Writes a new file. When it resolves, the bytes are on disk, but the name only after `syncFolder`. */
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

/** Creates or replaces a file in one step: readers see the old content or the new, never a part. */
export async function replaceFile(
  path: string,
  content: string | Uint8Array | AsyncIterable<Uint8Array>,
  temporaryFolder: string,
  mode?: number,
): Promise<void> {
  const temporary = join(temporaryFolder, newWriterTag())
  try {
    await writeNewFile(temporary, content, mode)
    await rename(temporary, path)
  } catch (error) {
    await rm(temporary, { force: true })
    throw error
  }
  await syncFolder(dirname(path))
}

/** Creates a file with its content in one step. False if it exists already. */
export async function createFile(path: string, content: string, temporaryFolder: string): Promise<boolean> {
  const temporary = join(temporaryFolder, newWriterTag())
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
 * Removes files of dead processes from a folder of temporary files, each named by its writer's tag. Creates
 * the folder if it is missing: copies and backups often omit empty folders.
 */
export async function sweepTemporaryFolder(path: string): Promise<void> {
  await ensureFolder(path, PRIVATE_MODE)
  for (const name of await readdir(path)) {
    const state = writerState(name)
    if (state === 'running') continue
    if (state === 'unknown' && !(await isOlderThan(join(path, name), UNKNOWN_WRITER_TIMEOUT_MS))) continue
    await rm(join(path, name), { recursive: true, force: true })
  }
}

/** False if the file does not exist. */
export async function isOlderThan(path: string, ms: number): Promise<boolean> {
  try {
    return Date.now() - (await lstat(path)).mtimeMs > ms
  } catch (error) {
    if (hasCode(error, 'ENOENT', 'ENOTDIR')) return false
    throw error
  }
}

/*
 * Temporary files in a shared folder are named after their writer, so that files of a dead process can be
 * removed without affecting those of a running one. A tag is `place-pid-process-random`:
 *   place    where the pid is valid: this machine, since its last boot, in this pid namespace (container)
 *   process  distinguishes this process from an earlier one with the same pid
 *   random   distinguishes the files of a process
 */

const WRITER_TAG = /^([0-9a-f]{12})-(\d+)-([0-9a-f]{12})-[0-9a-f]{12}$/
const PLACE = identifyPlace()
const PROCESS = randomId()

/** A new tag of this process. */
export function newWriterTag(): string {
  return `${PLACE}-${process.pid}-${PROCESS}-${randomId()}`
}

/** `unknown`: the writer is on another machine or in another container, or this is not a tag. */
function writerState(tag: string): 'running' | 'ended' | 'unknown' {
  const [, place, pid, instance] = WRITER_TAG.exec(tag) ?? []
  if (place !== PLACE) return 'unknown'
  const isRunning = Number(pid) === process.pid ? instance === PROCESS : isProcessAlive(Number(pid))
  return isRunning ? 'running' : 'ended'
}

function identifyPlace(): string {
  const bootId = readOrEmpty(() => readFileSync('/proc/sys/kernel/random/boot_id', 'utf8'))
  const namespace = readOrEmpty(() => readlinkSync('/proc/self/ns/pid'))
  return createHash('sha1').update([hostname(), bootId, namespace].join('\n')).digest('hex').slice(0, 12)
}

/** Only Linux has these files. */
function readOrEmpty(read: () => string): string {
  try {
    return read()
  } catch {
    return ''
  }
}

function randomId(): string {
  return randomBytes(6).toString('hex')
}
