import { createHash } from 'node:crypto'
import { setImmediate } from 'node:timers/promises'
import {
  commitBody,
  type ObjectId,
  type ObjectType,
  objectHeader,
  type TreeEntry,
  toHex,
  treeBody,
} from './git-objects.ts'
import { type GitObject, inPieces, type PackPart, packObjects } from './pack.ts'
import { packInThread, reservePackingThread } from './packing-threads.ts'

/** One commit and all that it holds, to be packed as it is stored: no more than a part of the pack is in memory. */
export interface UnpackedContents {
  /** 40 hex digits each. */
  commit: string
  tree: string
  objectCount: number
  /** The same parts each time, packed while they are read. Not twice at the same time. */
  pack(): AsyncIterable<PackPart>
}

const MAX_INLINE_OBJECTS = 200
const MAX_INLINE_BYTES = 512 * 1024

/**
 * Makes one commit of the files for `use`, which can pack it. The same files and plan give the same ids and the same
 * pack, always.
 *
 * Small contents are packed on this thread; more by a packing thread, which is kept for `use` before it is called.
 * The `parties` that a request is from (its subject, then its organization) take turns at these threads.
 * Rejects with the signal's reason once it is aborted, and with `RateLimited` when too many wait for a packing thread.
 */
export async function prepareContents<T>(
  files: readonly ContentFile[],
  plan: CommitPlan,
  { signal, parties = [] }: { signal: AbortSignal; parties?: readonly string[] },
  use: (contents: UnpackedContents) => Promise<T>,
): Promise<T> {
  const { commit, tree, objects } = await planContents(files, plan, signal)
  const facts = { commit, tree, objectCount: objects.length }
  const bytes = objects.reduce((sum, { body }) => sum + body.length, 0)
  if (objects.length < MAX_INLINE_OBJECTS && bytes < MAX_INLINE_BYTES) {
    const pack = () => packObjects(objects.length, objects.map(inPieces))
    return use({ ...facts, pack })
  }
  const endTurn = await reservePackingThread(parties, signal)
  try {
    return await use({ ...facts, pack: () => packInThread(objects, signal) })
  } finally {
    endTurn()
  }
}

/** One commit and all that it holds. The files' contents are where they were: nothing is copied. */
export interface PlannedContents {
  /** 40 hex digits each. */
  commit: string
  tree: string
  /** Each once, in the order of the pack. */
  objects: readonly GitObject[]
}

const SLICE_MS = 5
const HASH_CHUNK_BYTES = 1024 * 1024

/** A folder while it is being filled: files by name are their entries, folders by name their own maps. */
type Folder = Map<string, TreeEntry | Folder>

/**
 * Names all objects of the commit. The same files and plan give the same ids, always. This thread is not held for more
 * than some 10 ms at a time. Rejects with the signal's reason once it is aborted.
 */
export async function planContents(
  files: readonly ContentFile[],
  plan: CommitPlan,
  signal: AbortSignal,
): Promise<PlannedContents> {
  const planned = new ObjectList(signal)
  const root: Folder = new Map()
  for (const file of files) {
    const segments = file.path.split('/')
    const name = segments.pop() ?? ''
    const folder = segments.reduce(subfolder, root)
    if (folder.has(name)) throw pathClashError(file.path)
    folder.set(name, {
      mode: file.executable ? '100755' : '100644',
      name,
      id: await planned.add('blob', file.content),
    })
  }
  const tree = await addFolder(planned, root)
  const commit = await planned.add('commit', commitBody(tree, plan))
  return { commit: toHex(commit), tree: toHex(tree), objects: planned.objects() }
}

/** Collects objects, each distinct one once. */
class ObjectList {
  private readonly objectsById = new Map<ObjectId, GitObject>()
  private readonly signal: AbortSignal
  private sliceEndsAtMs = performance.now() + SLICE_MS

  constructor(signal: AbortSignal) {
    signal.throwIfAborted()
    this.signal = signal
  }

  async add(type: ObjectType, body: Uint8Array): Promise<ObjectId> {
    const hash = createHash('sha1').update(objectHeader(type, body.length))
    for (let at = 0; at < body.length; at += HASH_CHUNK_BYTES) {
      hash.update(body.subarray(at, at + HASH_CHUNK_BYTES))
      if (performance.now() >= this.sliceEndsAtMs) await this.yieldToEventLoop()
    }
    const id = hash.digest('binary')
    if (!this.objectsById.has(id)) this.objectsById.set(id, { type, id, body })
    return id
  }

  objects(): GitObject[] {
    return [...this.objectsById.values()]
  }

  private async yieldToEventLoop(): Promise<void> {
    await setImmediate()
    this.signal.throwIfAborted()
    this.sliceEndsAtMs = performance.now() + SLICE_MS
  }
}

function subfolder(folder: Folder, name: string): Folder {
  const existing = folder.get(name)
  if (existing instanceof Map) return existing
  if (existing !== undefined) throw pathClashError(name)
  const created: Folder = new Map()
  folder.set(name, created)
  return created
}

async function addFolder(planned: ObjectList, folder: Folder): Promise<ObjectId> {
  const entries: TreeEntry[] = []
  for (const [name, item] of folder) {
    entries.push(item instanceof Map ? { mode: '40000', name, id: await addFolder(planned, item) } : item)
  }
  return planned.add('tree', treeBody(entries))
}

/** The paths have been validated before: this is a fault of ours, and better found here than by git. */
function pathClashError(path: string): Error {
  return new Error(`"${path}" is in the contents twice, or is both a file and a folder.`)
}

/** One file to be committed. `path` has been validated: relative, `/` between segments, no clash with another. */
export interface ContentFile {
  path: string
  content: Uint8Array
  executable: boolean
}

/** Everything about the commit besides the files; together they fix its id. */
export interface CommitPlan {
  message: string
  author: { name: string; email: string }
  /** Seconds since 1970, UTC: author and committer time. */
  unixSeconds: number
}

/**
 * One commit without parents, with all its trees and blobs, as the git pack that is pushed
 * (gitformat-pack(5)): what is accepted is byte for byte what is sent.
 */
export interface PreparedContents {
  /** 40 hex digits each. */
  commit: string
  tree: string
  objectCount: number
  /** Length of the whole pack. */
  packBytes: number
  /** The pack, in parts; may be called again, and then starts over. */
  pack(): AsyncIterable<Uint8Array>
  /** The pack's index, version 2: 28 bytes an object and some. */
  index(): Promise<Uint8Array>
}

/**
 * Contents whose pack is read from where it was stored, or from memory.
 * Reading rejects when the parts do not add up to `packBytes`: half a pack is never taken for a whole one.
 */
export function preparedContents(
  facts: Pick<PreparedContents, 'commit' | 'tree' | 'objectCount' | 'packBytes'>,
  readParts: () => Iterable<Uint8Array> | AsyncIterable<Uint8Array>,
  readIndex: () => Promise<Uint8Array>,
): PreparedContents {
  const { commit, tree, objectCount, packBytes } = facts
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
