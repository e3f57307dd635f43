import type { CommitPlan, ContentFile } from '../../../src/github/git/commit-pack.ts'
import { planContents } from '../../../src/github/git/commit-pack.ts'
import { inPieces, type PackPart, packObjects } from '../../../src/github/git/pack.ts'

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
  const { commit, tree, objects } = await planContents(files, plan, new AbortController().signal)
  const packParts = await collectParts(packObjects(objects.length, objects.map(inPieces)))
  const index = packParts.pop() ?? new Uint8Array()
  const packBytes = packParts.reduce((sum, part) => sum + part.length, 0)
  return { commit, tree, objectCount: objects.length, packBytes, packParts, index }
}

/** All parts, the index last. */
export function collectParts(parts: AsyncIterable<PackPart>): Promise<Uint8Array[]> {
  return Array.fromAsync(parts, ({ bytes }) => bytes.slice())
}
