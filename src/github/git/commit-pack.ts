import { createHash } from 'node:crypto'
import { RateLimitedError } from '../../errors.ts'
import { CooperativeScheduler } from '../../runtime/cooperative-scheduler.ts'
import { FairSlots } from '../../runtime/fair-slots.ts'
import {
  type CommitPlan,
  commitBody,
  type GitObject,
  type ObjectId,
  type ObjectType,
  objectHeader,
  type TreeEntry,
  toHex,
  treeBody,
} from './git-objects.ts'
import { type PackPart, packObjects } from './pack.ts'

/**
 * A file to commit. `path` is already validated: relative, `/` between segments, no clash with another path.
 */
export interface ContentFile {
  path: string
  content: Uint8Array
  executable: boolean
}

/** A commit and all its objects, not packed yet. */
export interface UnpackedContents {
  /** 40 hex digits each. */
  commit: string
  tree: string
  objectCount: number
  /** Packs while it is read, one part at a time. Every call returns the same parts. */
  pack(): AsyncIterable<PackPart>
}

/**
 * A commit without parents, as the pack to push. The bytes sent are the bytes that were stored at acceptance.
 */
export interface PreparedContents {
  /** 40 hex digits each. */
  commit: string
  tree: string
  objectCount: number
  /** Length of the whole pack. */
  packBytes: number
  /** The pack, in parts. Every call starts over. */
  pack(): AsyncIterable<Uint8Array>
  /** The pack's index, version 2: about 28 bytes per object. */
  index(): Promise<Uint8Array>
}

const MAX_SMALL_OBJECTS = 200
const MAX_SMALL_BYTES = 512 * 1024

// Each caller holds its contents in memory and, while it stores them, a database connection.
const MAX_PACKING = 2
const MAX_WAITING = 16
/** About as long as packing the largest contents takes. */
const RETRY_AFTER_MS = 5_000

const largeContentsSlots = new FairSlots(
  MAX_PACKING,
  MAX_WAITING,
  () =>
    new RateLimitedError(
      'Too many large deployments are being accepted. Try again in a few seconds.',
      RETRY_AFTER_MS,
    ),
)

/**
 * Computes all objects of one commit of the files, ready to be packed. The same files and plan always result
 * in the same ids and the same pack. The files' contents are not copied.
 *
 * Large contents wait for one of a few slots, which `parties` (the subject, then its organization) share
 * fairly, and hold it until the result is disposed of. Rejects with the signal's reason once it is aborted.
 * @throws RateLimitedError when too many wait
 */
export async function prepareContents(
  files: readonly ContentFile[],
  plan: CommitPlan,
  { signal, parties = [] }: { signal: AbortSignal; parties?: readonly string[] },
): Promise<UnpackedContents & Disposable> {
  const { commit, tree, objects } = await planObjects(files, plan, signal)
  const releaseSlot = isSmall(objects) ? () => {} : await largeContentsSlots.acquire(parties, signal)
  return {
    commit,
    tree,
    objectCount: objects.length,
    pack: () => packObjects(objects, signal),
    [Symbol.dispose]: releaseSlot,
  }
}

/**
 * Contents whose pack was stored before. Reading rejects when the parts do not add up to `packBytes`, so a
 * truncated pack is never mistaken for a whole one.
 */
export function preparedContents(
  summary: Pick<PreparedContents, 'commit' | 'tree' | 'objectCount' | 'packBytes'>,
  readParts: () => Iterable<Uint8Array> | AsyncIterable<Uint8Array>,
  readIndex: () => Promise<Uint8Array>,
): PreparedContents {
  const { commit, tree, objectCount, packBytes } = summary
  async function* pack() {
    let length = 0
    for await (const part of readParts()) {
      length += part.length
      yield part
    }
    if (length !== packBytes) throw new Error(`The stored pack has ${length} bytes instead of ${packBytes}.`)
  }
  return { commit, tree, objectCount, packBytes, pack, index: readIndex }
}

function isSmall(objects: readonly GitObject[]): boolean {
  const bytes = objects.reduce((sum, { body }) => sum + body.length, 0)
  return objects.length < MAX_SMALL_OBJECTS && bytes < MAX_SMALL_BYTES
}

/** A folder while it is filled: maps names to files' tree entries, or to folders. */
type Folder = Map<string, TreeEntry | Folder>

/** All distinct objects of the commit, in the order of the pack. */
async function planObjects(
  files: readonly ContentFile[],
  plan: CommitPlan,
  signal: AbortSignal,
): Promise<{ commit: string; tree: string; objects: readonly GitObject[] }> {
  const objects = new ObjectList(signal)
  const root: Folder = new Map()
  for (const file of files) {
    const segments = file.path.split('/')
    const name = segments.pop() ?? ''
    const folder = segments.reduce(subfolder, root)
    if (folder.has(name)) throw pathClashError(file.path)
    folder.set(name, {
      mode: file.executable ? '100755' : '100644',
      name,
      id: await objects.add('blob', file.content),
    })
  }
  const tree = await addFolder(objects, root)
  const commit = await objects.add('commit', commitBody(tree, plan))
  return { commit: toHex(commit), tree: toHex(tree), objects: objects.toArray() }
}

function subfolder(folder: Folder, name: string): Folder {
  const existing = folder.get(name)
  if (existing instanceof Map) return existing
  if (existing !== undefined) throw pathClashError(name)
  const created: Folder = new Map()
  folder.set(name, created)
  return created
}

async function addFolder(objects: ObjectList, folder: Folder): Promise<ObjectId> {
  const entries: TreeEntry[] = []
  for (const [name, item] of folder) {
    entries.push(item instanceof Map ? { mode: '40000', name, id: await addFolder(objects, item) } : item)
  }
  return objects.add('tree', treeBody(entries))
}

/** Paths were validated before, so this is a bug of Shipcast, detected before git does. */
function pathClashError(path: string): Error {
  return new Error(`"${path}" is in the contents twice, or is both a file and a folder.`)
}

const HASH_CHUNK_BYTES = 1024 * 1024

/** Collects objects, each distinct one once, in time slices. */
class ObjectList {
  private readonly objectsById = new Map<ObjectId, GitObject>()
  private readonly scheduler: CooperativeScheduler

  constructor(signal: AbortSignal) {
    this.scheduler = new CooperativeScheduler(signal)
  }

  async add(type: ObjectType, body: Uint8Array): Promise<ObjectId> {
    const hash = createHash('sha1').update(objectHeader(type, body.length))
    for (let at = 0; at < body.length; at += HASH_CHUNK_BYTES) {
      hash.update(body.subarray(at, at + HASH_CHUNK_BYTES))
      if (this.scheduler.shouldYield) await this.scheduler.yieldToEventLoop()
    }
    const id = hash.digest('binary')
    if (!this.objectsById.has(id)) this.objectsById.set(id, { type, id, body })
    return id
  }

  toArray(): GitObject[] {
    return [...this.objectsById.values()]
  }
}
