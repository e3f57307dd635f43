import { open, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { UnpackedContents } from '../../src/github/git/commit-pack.ts'
import { type PreparedContents, preparedContents } from '../../src/github/git/commit-pack.ts'

/** Packs contents to files in a folder, as a server does to its database; they are pushed from there. */
export async function packToDisk(contents: UnpackedContents, folder: string): Promise<PreparedContents> {
  const packFile = join(folder, 'pack')
  const indexFile = join(folder, 'index')
  await using pack = await open(packFile, 'w')
  await using index = await open(indexFile, 'w')
  let packBytes = 0
  for await (const { kind, bytes } of contents.pack()) {
    await (kind === 'pack' ? pack : index).writeFile(bytes)
    if (kind === 'pack') packBytes += bytes.length
  }
  async function* readPack() {
    await using stored = await open(packFile)
    yield* stored.createReadStream({ highWaterMark: 1024 * 1024, autoClose: false })
  }
  const { commit, tree, objectCount } = contents
  return preparedContents({ commit, tree, objectCount, packBytes }, readPack, () => readFile(indexFile))
}
