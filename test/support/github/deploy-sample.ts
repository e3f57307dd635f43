import { preparedContents } from '../../../src/github/git/commit-pack.ts'
import { LocalForge } from '../../../src/github/local/local-forge.ts'
import { packContents } from './pack-contents.ts'
import { EDGE_CASE_FILES, SAMPLE_PLAN } from './sample-contents.ts'

/** Executes all steps of a deployment, without results of an earlier attempt. */
export async function deploySample(
  folder: string,
  { owner = 'acme', name = 'site', files = EDGE_CASE_FILES } = {},
): Promise<{ repositoryId: string; commit: string }> {
  const forge = new LocalForge({ folder, cloneUrlBase: 'http://localhost/git' })
  const context = { signal: new AbortController().signal }
  const packed = await packContents(files, SAMPLE_PLAN)
  const { login } = await forge.ensureOrganization({ login: owner }, context)
  const { id } = await forge.ensureRepository(
    {
      owner: login,
      name,
      visibility: 'PUBLIC',
      description: null,
      intentId: 'intent-1',
      knownId: null,
      branch: 'main',
      plannedCommit: packed.commit,
    },
    context,
  )
  const contents = preparedContents(
    packed,
    () => packed.packParts,
    async () => packed.index,
  )
  const push = { owner: login, name, repositoryId: id, branch: 'main', expectedHead: null, contents }
  await forge.pushContents(push, context)
  return { repositoryId: id, commit: packed.commit }
}
