import { type ContentFile, prepareContents } from '../../../src/github/git/commit-pack.ts'
import type { CommitPlan } from '../../../src/github/git/git-objects.ts'
import type { PackPart } from '../../../src/github/git/pack.ts'

/** Contents packed into memory. */
export interface PackedContents {
  commit: string
  tree: string
  objectCount: number
  packBytes: number
  packParts: Uint8Array[]
  index: Uint8Array
}

export async function packContents(files: readonly ContentFile[], plan: CommitPlan): Promise<PackedContents> {
  using contents = await prepareContents(files, plan, { signal: new AbortController().signal })
  const { commit, tree, objectCount } = contents
  const packParts = await collectParts(contents.pack())
  const index = packParts.pop() ?? new Uint8Array()
  const packBytes = packParts.reduce((sum, part) => sum + part.length, 0)
  return { commit, tree, objectCount, packBytes, packParts, index }
}

/** All parts, the index last. */
export function collectParts(parts: AsyncIterable<PackPart>): Promise<Uint8Array[]> {
  return Array.fromAsync(parts, ({ bytes }) => bytes.slice())
}
