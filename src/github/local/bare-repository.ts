import { createHash } from 'node:crypto'
import { link, mkdir, readdir, rename, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { ensureFolder, PRIVATE_MODE, syncFolder } from '../../runtime/folders.ts'
import { ForgeError } from '../forge-error.ts'
import type { PreparedContents } from '../git/commit-pack.ts'
import {
  createFile,
  isOlderThan,
  newWriterTag,
  readIfExists,
  replaceFile,
  sweepTemporaryFolder,
  writeNewFile,
} from './durable-files.ts'
import type { RepositoryRecord } from './forge-layout.ts'
import { hasCode } from './storage-errors.ts'

/** A lock is held for milliseconds; after this time, its holder has crashed. */
const STALE_LOCK_MS = 30_000
const READ_ONLY_MODE = 0o400

/** A bare git repository on disk (gitrepository-layout(5)). Every method may be repeated after a crash. */
export class BareRepository {
  readonly path: string
  private readonly temporaryFolder: string

  constructor(path: string) {
    this.path = path
    this.temporaryFolder = join(path, 'shipcast', 'tmp')
  }

  /** Builds an empty repository in the temporary folder and moves it here. False if one exists already. */
  async create(record: RepositoryRecord, headRef: string, temporaryFolder: string): Promise<boolean> {
    const temporary = join(temporaryFolder, newWriterTag())
    try {
      await buildEmptyRepository(temporary, record, headRef)
      await rename(temporary, this.path)
    } catch (error) {
      await rm(temporary, { recursive: true, force: true })
      if (hasCode(error, 'ENOTEMPTY', 'EEXIST', 'ENOTDIR')) return false
      throw error
    }
    await syncFolder(dirname(this.path))
    return true
  }

  /** Removes the temporary files of dead writers. */
  sweep(): Promise<void> {
    return sweepTemporaryFolder(this.temporaryFolder)
  }

  /** Null when no repository exists, or it was not created by Shipcast. */
  async readRecord(): Promise<RepositoryRecord | null> {
    const json = await readIfExists(join(this.path, 'shipcast', 'repository.json'))
    return json === null ? null : JSON.parse(json)
  }

  /** The commit that the ref points to, 40 hex digits; null if the ref does not exist. */
  async readRef(ref: string): Promise<string | null> {
    const loose = await readIfExists(join(this.path, ref))
    if (loose !== null) return loose.trim()
    return (await this.packedRefs()).get(ref) ?? null
  }

  /** The ref that HEAD points to: the branch that a clone checks out. */
  async readHead(): Promise<string | null> {
    return /^ref: (.+)\n$/.exec((await readIfExists(join(this.path, 'HEAD'))) ?? '')?.[1] ?? null
  }

  /**
   * Adds the pack to the repository's objects. No ref points to them yet. Rejects if the bytes do not match
   * their checksums, and between two parts if the signal is aborted.
   */
  async addPack(
    contents: PreparedContents,
    signal: AbortSignal,
    onBytes: (done: number) => void,
  ): Promise<void> {
    const index = Buffer.from(await contents.index())
    const checksum = index.subarray(-40, -20)
    if (!sha1(index.subarray(0, -20)).equals(index.subarray(-20))) throw damagedContentsError()
    const folder = join(this.path, 'objects', 'pack')
    const name = `pack-${checksum.toString('hex')}`
    await ensureFolder(folder, PRIVATE_MODE)
    // A file with this name is complete and durable: an earlier push crashed before it moved the ref.
    const present = new Set(await readdir(folder))
    if (!present.has(`${name}.pack`)) {
      const verified = verifyPack(contents, checksum, signal, onBytes)
      await replaceFile(join(folder, `${name}.pack`), verified, this.temporaryFolder, READ_ONLY_MODE)
    }
    signal.throwIfAborted()
    // The index comes last, because git finds a pack by its index.
    if (!present.has(`${name}.idx`)) {
      await replaceFile(join(folder, `${name}.idx`), index, this.temporaryFolder, READ_ONLY_MODE)
    }
  }

  /**
   * Whether the ref can move from one commit to another: false if it already points to `to`. Rejects with
   * `REF_MOVED` if it points elsewhere.
   */
  async checkRef(ref: string, from: string | null, to: string): Promise<boolean> {
    const current = await this.readRef(ref)
    if (current === to) return false
    if (current !== from) throw refMovedError(ref, current)
    return true
  }

  /**
   * Moves the ref from one commit to another (null: it must not exist) by compare-and-swap, or rejects with
   * `REF_MOVED`. Does nothing if it already points to `to`.
   */
  async updateRef(ref: string, from: string | null, to: string): Promise<void> {
    await this.makeRefFolder(ref)
    if (!(await this.checkRef(ref, from, to))) return
    await this.pointHeadAt(ref)
    if (from !== null) await this.replaceRef(ref, from, to)
    // Creating the file is the compare-and-swap. It may fail because another process pushed the same commit.
    else if (!(await createFile(join(this.path, ref), `${to}\n`, this.temporaryFolder)))
      await this.checkRef(ref, from, to)
  }

  /** Takes git's own lock, `<ref>.lock`, so that git commands and this method exclude each other. */
  private async replaceRef(ref: string, from: string, to: string): Promise<void> {
    const path = join(this.path, ref)
    const lock = `${path}.lock`
    await this.removeStaleLock(lock)
    if (!(await createFile(lock, `${to}\n`, this.temporaryFolder))) throw lockedError(lock)
    try {
      if (await this.checkRef(ref, from, to)) await rename(lock, path)
      else await rm(lock)
    } catch (error) {
      await rm(lock, { force: true })
      throw error
    }
    await syncFolder(dirname(path))
  }

  /** Renames the lock before removing it, so that only one of several processes removes it. */
  private async removeStaleLock(lock: string): Promise<void> {
    if (!(await isOlderThan(lock, STALE_LOCK_MS))) return
    const temporary = join(this.temporaryFolder, newWriterTag())
    try {
      await rename(lock, temporary)
      // Another process removed the stale lock first: this is its new lock, which is put back.
      if (!(await isOlderThan(temporary, STALE_LOCK_MS))) await link(temporary, lock)
    } catch (error) {
      if (!hasCode(error, 'ENOENT', 'EEXIST')) throw error
    } finally {
      await rm(temporary, { force: true })
    }
  }

  /** HEAD does not change once the branch that it points to exists. */
  private async pointHeadAt(ref: string): Promise<void> {
    const head = await this.readHead()
    if (head === ref || (head !== null && (await this.readRef(head)) !== null)) return
    await replaceFile(join(this.path, 'HEAD'), `ref: ${ref}\n`, this.temporaryFolder)
  }

  private async makeRefFolder(ref: string): Promise<void> {
    try {
      await ensureFolder(dirname(join(this.path, ref)), PRIVATE_MODE)
    } catch (error) {
      if (!hasCode(error, 'EEXIST', 'ENOTDIR')) throw error
      throw new ForgeError('REF_MOVED', `${ref} cannot exist: another branch has the name of its folder.`)
    }
  }

  /** The file that `git gc` moves refs to: lines of `commit SP ref`, among others. */
  private async packedRefs(): Promise<Map<string, string>> {
    const text = (await readIfExists(join(this.path, 'packed-refs'))) ?? ''
    return new Map(Array.from(text.matchAll(/^([0-9a-f]{40}) (.+)$/gm), ([, id = '', ref = '']) => [ref, id]))
  }
}

async function buildEmptyRepository(path: string, record: RepositoryRecord, headRef: string): Promise<void> {
  const folders = [
    '',
    'objects',
    'objects/pack',
    'refs',
    'refs/heads',
    'refs/tags',
    'shipcast',
    'shipcast/tmp',
  ]
  for (const folder of folders) await mkdir(join(path, folder), PRIVATE_MODE)
  await Promise.all([
    writeNewFile(join(path, 'HEAD'), `ref: ${headRef}\n`),
    writeNewFile(
      join(path, 'config'),
      '[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = true\n',
    ),
    writeNewFile(join(path, 'shipcast', 'repository.json'), `${JSON.stringify(record, null, 2)}\n`),
  ])
  await Promise.all(folders.map((folder) => syncFolder(join(path, folder))))
}

/** Yields the parts, and throws after the last one unless they are the pack with this checksum. */
async function* verifyPack(
  contents: PreparedContents,
  checksum: Uint8Array,
  signal: AbortSignal,
  onBytes: (done: number) => void,
): AsyncGenerator<Uint8Array> {
  const hash = createHash('sha1')
  const trailer: Uint8Array[] = []
  let done = 0
  for await (const part of contents.pack()) {
    signal.throwIfAborted()
    const body = part.subarray(0, Math.max(0, contents.packBytes - checksum.length - done))
    hash.update(body)
    trailer.push(part.subarray(body.length))
    done += part.length
    yield part
    onBytes(done)
  }
  signal.throwIfAborted()
  if (!hash.digest().equals(checksum) || !Buffer.concat(trailer).equals(checksum))
    throw damagedContentsError()
}

function sha1(bytes: Uint8Array): Buffer {
  return createHash('sha1').update(bytes).digest()
}

function damagedContentsError(): Error {
  return new Error('The stored contents are damaged: their checksum does not match.')
}

function lockedError(lock: string): ForgeError {
  return new ForgeError(
    'TRANSIENT',
    `Another process is writing to the repository: ${lock} exists. The push will be retried; a lock left by a crash is removed after ${STALE_LOCK_MS / 1000} seconds.`,
  )
}

function refMovedError(ref: string, current: string | null): ForgeError {
  const state = current === null ? 'does not exist' : `is at ${current}`
  return new ForgeError(
    'REF_MOVED',
    `${ref} ${state}, which is not where this deployment left it. Nothing was overwritten.`,
  )
}
