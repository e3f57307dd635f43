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
import type { GitObject } from './pack.ts'
import type { CommitPlan, ContentFile } from './prepared-contents.ts'

/** One commit and all that it holds. The files' contents are where they were: nothing is copied. */
export interface PlannedContents {
  /** 40 hex digits each. */
  commit: string
  tree: string
  /** Each once, in the order of the pack. */
  objects: readonly GitObject[]
}

const SLICE_MS = 5
const HASHED_AT_ONCE = 1024 * 1024

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
    if (folder.has(name)) throw clash(file.path)
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
  readonly #objects = new Map<ObjectId, GitObject>()
  readonly #signal: AbortSignal
  #sliceEndsAt = performance.now() + SLICE_MS

  constructor(signal: AbortSignal) {
    signal.throwIfAborted()
    this.#signal = signal
  }

  async add(type: ObjectType, body: Uint8Array): Promise<ObjectId> {
    const hash = createHash('sha1').update(objectHeader(type, body.length))
    for (let at = 0; at < body.length; at += HASHED_AT_ONCE) {
      hash.update(body.subarray(at, at + HASHED_AT_ONCE))
      if (performance.now() >= this.#sliceEndsAt) await this.#nextSlice()
    }
    const id = hash.digest('binary')
    if (!this.#objects.has(id)) this.#objects.set(id, { type, id, body })
    return id
  }

  objects(): GitObject[] {
    return [...this.#objects.values()]
  }

  async #nextSlice(): Promise<void> {
    await setImmediate()
    this.#signal.throwIfAborted()
    this.#sliceEndsAt = performance.now() + SLICE_MS
  }
}

function subfolder(folder: Folder, name: string): Folder {
  const existing = folder.get(name)
  if (existing instanceof Map) return existing
  if (existing !== undefined) throw clash(name)
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
function clash(path: string): Error {
  return new Error(`"${path}" is in the contents twice, or is both a file and a folder.`)
}
