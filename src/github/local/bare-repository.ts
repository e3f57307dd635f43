import { createHash } from 'node:crypto'
import { mkdir, readdir, rename, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { ensureFolder, PRIVATE_MODE, syncFolder } from '../../runtime/folders.ts'
import { ForgeError } from '../forge-error.ts'
import type { PreparedContents } from '../git/commit-pack.ts'
import { createFile, readIfExists, replaceFile, sweepTemporaryFolder, writeNewFile } from './durable-files.ts'
import { withFileLock } from './file-lock.ts'
import type { RepositoryRecord } from './forge-layout.ts'
import { hasCode } from './storage-errors.ts'
import { newWriterTag } from './writer-tag.ts'

/** A bare git repository on the disk (gitrepository-layout(5)). Every method may be repeated after a crash. */
export class BareRepository {
  readonly path: string
  private readonly temporaryFolder: string

  constructor(path: string) {
    this.path = path
    this.temporaryFolder = join(path, 'shipcast', 'tmp')
  }

  /** Builds an empty repository aside and moves it here. False when there is one already. */
  async create(record: RepositoryRecord, headRef: string, temporaryFolder: string): Promise<boolean> {
    const aside = join(temporaryFolder, await newWriterTag())
    try {
      await buildEmptyRepository(aside, record, headRef)
      await rename(aside, this.path)
    } catch (error) {
      await rm(aside, { recursive: true, force: true })
      if (hasCode(error, 'ENOTEMPTY', 'EEXIST', 'ENOTDIR')) return false
      throw error
    }
    await syncFolder(dirname(this.path))
    return true
  }

  /** Removes what writers left behind that died here. */
  sweep(): Promise<void> {
    return sweepTemporaryFolder(this.temporaryFolder)
  }

  /** Null where there is no repository, or none of ours. */
  async readRecord(): Promise<RepositoryRecord | null> {
    const json = await readIfExists(join(this.path, 'shipcast', 'repository.json'))
    return json === null ? null : JSON.parse(json)
  }

  /** The commit that the ref is at, 40 hex digits; null where it is not. */
  async readRef(ref: string): Promise<string | null> {
    const loose = await readIfExists(join(this.path, ref))
    if (loose !== null) return loose.trim()
    return (await this.packedRefs()).get(ref) ?? null
  }

  /** The ref that HEAD names: the branch that a clone checks out. */
  async readHead(): Promise<string | null> {
    return /^ref: (.+)\n$/.exec((await readIfExists(join(this.path, 'HEAD'))) ?? '')?.[1] ?? null
  }

  /**
   * Adds the pack to the repository's objects. Nothing that is visible refers to them yet.
   * Rejects when the bytes do not match their checksums, and between two parts when the signal is aborted.
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
    // What has this name is durable and whole: a crash came between here and the ref.
    await ensureFolder(folder, PRIVATE_MODE)
    const present = new Set(await readdir(folder))
    if (!present.has(`${name}.pack`)) {
      await this.writeDurably(join(folder, `${name}.pack`), verifyPack(contents, checksum, signal, onBytes))
    }
    signal.throwIfAborted()
    // The index last: git takes a pack for being there when it is.
    if (!present.has(`${name}.idx`)) await this.writeDurably(join(folder, `${name}.idx`), index)
    await syncFolder(folder)
  }

  /** Whether the ref can go from one commit to another; false when it is at `to` already, `REF_MOVED` when elsewhere. */
  async checkRef(ref: string, from: string | null, to: string): Promise<boolean> {
    const current = await this.readRef(ref)
    if (current === to) return false
    if (current !== from) throw refMovedError(ref, current)
    return true
  }

  /**
   * Moves the ref from one commit to another (null: it must not exist), or rejects with `REF_MOVED`.
   * @returns false when it was at `to` already
   */
  async updateRef(ref: string, from: string | null, to: string, signal: AbortSignal): Promise<boolean> {
    const path = join(this.path, ref)
    await this.makeRefFolder(ref)
    return withFileLock(`${path}.lock`, this.temporaryFolder, signal, async () => {
      if (!(await this.checkRef(ref, from, to))) return false
      await this.pointHeadAt(ref)
      if (from !== null) {
        await replaceFile(path, `${to}\n`, this.temporaryFolder)
      } else if (!(await createFile(path, `${to}\n`, this.temporaryFolder))) {
        throw refMovedError(ref, await this.readRef(ref))
      }
      return true
    })
  }

  /** Keeps the two lists true by which "dumb" HTTP clients find everything (git-update-server-info(1)). */
  async updateServerInfo(signal: AbortSignal): Promise<void> {
    const path = join(this.path, 'info', 'refs')
    await withFileLock(`${path}.lock`, this.temporaryFolder, signal, async () => {
      const refs = await this.allRefs()
      const names = await readdir(join(this.path, 'objects', 'pack'))
      const packs = names.filter((name) => name.endsWith('.pack')).sort()
      await this.replaceIfChanged(
        join(this.path, 'objects', 'info', 'packs'),
        `${packs.map((name) => `P ${name}\n`).join('')}\n`,
      )
      await this.replaceIfChanged(path, refs.map(([ref, commit]) => `${commit}\t${ref}\n`).join(''))
    })
  }

  private async writeDurably(path: string, content: Uint8Array | AsyncIterable<Uint8Array>): Promise<void> {
    const temporary = join(this.temporaryFolder, await newWriterTag())
    try {
      await writeNewFile(temporary, content, 0o400)
      await rename(temporary, path)
    } catch (error) {
      await rm(temporary, { force: true })
      throw error
    }
  }

  private async replaceIfChanged(path: string, content: string): Promise<void> {
    if ((await readIfExists(path)) !== content) await replaceFile(path, content, this.temporaryFolder)
  }

  /** HEAD stays where it is once the branch that it names exists. */
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
      throw new ForgeError('REF_MOVED', `${ref} cannot be: another branch has the name of its folder.`)
    }
  }

  private async allRefs(): Promise<[ref: string, commit: string][]> {
    const refs = await this.packedRefs()
    const files = await readdir(join(this.path, 'refs'), { recursive: true, withFileTypes: true })
    for (const file of files) {
      if (!file.isFile() || file.name.endsWith('.lock')) continue
      const ref = join(file.parentPath, file.name)
        .slice(this.path.length + 1)
        .replaceAll('\\', '/')
      const commit = await this.readRef(ref)
      if (commit !== null) refs.set(ref, commit)
    }
    return [...refs].sort(([a], [b]) => (a < b ? -1 : 1))
  }

  /** Where `git gc` moves refs to: lines of `commit SP ref`, among others. */
  private async packedRefs(): Promise<Map<string, string>> {
    const text = (await readIfExists(join(this.path, 'packed-refs'))) ?? ''
    return new Map(Array.from(text.matchAll(/^([0-9a-f]{40}) (.+)$/gm), ([, id = '', ref = '']) => [ref, id]))
  }
}

async function buildEmptyRepository(path: string, record: RepositoryRecord, headRef: string): Promise<void> {
  const folders = [
    ...['', 'info', 'objects', 'objects/info', 'objects/pack', 'refs', 'refs/heads', 'refs/tags'],
    ...['shipcast', 'shipcast/tmp'],
  ]
  for (const folder of folders) await mkdir(join(path, folder), PRIVATE_MODE)
  await Promise.all([
    writeNewFile(join(path, 'HEAD'), `ref: ${headRef}\n`),
    writeNewFile(
      join(path, 'config'),
      '[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = true\n',
    ),
    writeNewFile(join(path, 'info', 'refs'), ''),
    writeNewFile(join(path, 'objects', 'info', 'packs'), '\n'),
    writeNewFile(join(path, 'shipcast', 'repository.json'), `${JSON.stringify(record, null, 2)}\n`),
  ])
  await Promise.all(folders.map((folder) => syncFolder(join(path, folder))))
}

/** Lets the parts through, and throws after the last unless they are the pack that has this checksum. */
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
  return new Error('The stored contents are damaged: their checksum is not what it was.')
}

function refMovedError(ref: string, current: string | null): ForgeError {
  const where = current === null ? 'does not exist' : `is at ${current}`
  return new ForgeError(
    'REF_MOVED',
    `${ref} ${where}, which is not what this deployment left there; nothing was overwritten.`,
  )
}
