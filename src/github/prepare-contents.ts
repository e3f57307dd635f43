import { inPieces, type PackPart, packObjects } from './pack.ts'
import { packInThread, packingTurn } from './packing-threads.ts'
import { planContents } from './plan-contents.ts'
import type { CommitPlan, ContentFile } from './prepared-contents.ts'

/** One commit and all that it holds, to be packed as it is stored: no more than a part of the pack is in memory. */
export interface UnpackedContents {
  /** 40 hex digits each. */
  commit: string
  tree: string
  objectCount: number
  /** The same parts each time, packed while they are read. Not twice at the same time. */
  pack(): AsyncIterable<PackPart>
}

const INLINE_OBJECTS = 200
const INLINE_BYTES = 512 * 1024

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
  if (objects.length < INLINE_OBJECTS && bytes < INLINE_BYTES) {
    const pack = () => packObjects(objects.length, objects.map(inPieces))
    return use({ ...facts, pack })
  }
  const endTurn = await packingTurn(parties, signal)
  try {
    return await use({ ...facts, pack: () => packInThread(objects, signal) })
  } finally {
    endTurn()
  }
}
