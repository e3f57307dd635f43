import { move, transferableSymbol, valueSymbol } from 'piscina'
import { packContents } from './pack-contents.ts'
import type { Slab } from './prepare-contents.ts'
import type { CommitPlan, ContentFile } from './prepared-contents.ts'

export interface PackingTask {
  slabs: Slab[]
  plan: CommitPlan
}

/**
 * What a packing thread runs. Node loads this file as it is, by stripping its types: so neither here nor in what is
 * imported here may there be anything that strips to something else (decorators, enums, parameter properties).
 */
export default function pack({ slabs, plan }: PackingTask) {
  const packed = packContents(filesOf(slabs), plan)
  // The parts are views of one buffer. Moved, not copied, to the thread that asked.
  const buffers = new Set([...packed.packParts, packed.index].map((bytes) => bytes.buffer))
  return move({ [transferableSymbol]: [...buffers], [valueSymbol]: packed })
}

function* filesOf(slabs: readonly Slab[]): Generator<ContentFile> {
  for (const { paths, sizes, executable, bytes } of slabs) {
    let end = 0
    for (const [i, path] of paths.entries()) {
      const start = end
      end += sizes[i] ?? 0
      yield { path, content: bytes.subarray(start, end), executable: executable[i] ?? false }
    }
  }
}
