import { setImmediate } from 'node:timers/promises'
import { type PackedContents, packContents } from './pack-contents.ts'
import { packInThread } from './packing-threads.ts'
import type { CommitPlan, ContentFile } from './prepared-contents.ts'

export type { PackedContents } from './pack-contents.ts'

/** Files that travel to a packing thread together: their contents one after the other in one buffer. */
export interface Slab {
  paths: string[]
  sizes: number[]
  executable: boolean[]
  bytes: Uint8Array<ArrayBuffer>
}

const INLINE_FILES = 200
const INLINE_BYTES = 512 * 1024
const SLAB_BYTES = 4 * 1024 * 1024
const LONGEST_STRETCH_MS = 5

/**
 * Packs the files and one commit of them. The same files and plan give the same ids and the same pack, always.
 *
 * Small contents are packed at once, on this thread; more go to a packing thread, and this thread is not held for
 * more than some 10 ms at a time. Rejects with the signal's reason once it is aborted, and with a `TRANSIENT`
 * GitHubError when too many others wait for a packing thread.
 */
export async function prepareContents(
  files: readonly ContentFile[],
  plan: CommitPlan,
  { signal }: { signal: AbortSignal },
): Promise<PackedContents> {
  signal.throwIfAborted()
  const bytes = files.reduce((sum, file) => sum + file.content.length, 0)
  if (files.length < INLINE_FILES && bytes < INLINE_BYTES) return packContents(files, plan)
  return packInThread(plan, () => copyToSlabs(files, signal), signal)
}

/** Copies, because the files' own buffers are the caller's and stay usable. */
async function copyToSlabs(files: readonly ContentFile[], signal: AbortSignal): Promise<Slab[]> {
  const slabs: Slab[] = []
  let since = performance.now()
  for (const group of groupBySize(files)) {
    const slab = emptySlab(group)
    slabs.push(slab)
    let end = 0
    for (const { content } of group) {
      for (let at = 0; at < content.length; at += SLAB_BYTES) {
        const piece = content.subarray(at, at + SLAB_BYTES)
        slab.bytes.set(piece, end)
        end += piece.length
        if (performance.now() - since > LONGEST_STRETCH_MS) {
          await setImmediate()
          signal.throwIfAborted()
          since = performance.now()
        }
      }
    }
  }
  return slabs
}

/** Groups of up to `SLAB_BYTES`; a larger file is a group of its own. */
function* groupBySize(files: readonly ContentFile[]): Generator<ContentFile[]> {
  let group: ContentFile[] = []
  let bytes = 0
  for (const file of files) {
    if (group.length > 0 && bytes + file.content.length > SLAB_BYTES) {
      yield group
      group = []
      bytes = 0
    }
    group.push(file)
    bytes += file.content.length
  }
  if (group.length > 0) yield group
}

function emptySlab(group: readonly ContentFile[]): Slab {
  const sizes = group.map((file) => file.content.length)
  return {
    paths: group.map((file) => file.path),
    sizes,
    executable: group.map((file) => file.executable),
    bytes: Buffer.allocUnsafeSlow(sizes.reduce((sum, size) => sum + size, 0)),
  }
}
