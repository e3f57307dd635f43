import { expect, test } from '@jest/globals'
import { EmulatedGitHub, TOKEN } from '../../../test/support/github/emulated-github.ts'
import { MemoryRateLimitStore } from '../../../test/support/github/memory-rate-limit-store.ts'
import { packContents } from '../../../test/support/github/pack-contents.ts'
import { codeFiles, SAMPLE_PLAN } from '../../../test/support/github/sample-contents.ts'
import { type ForgeUnderTest, gitHubClientContract, inMemory } from '../github-client.contract.ts'
import type { EnsureRepositoryInput } from '../github-client.ts'
import { GitHubRestClient } from './github-rest-client.ts'

const context = { signal: new AbortController().signal }

function createClient(github: EmulatedGitHub): GitHubRestClient {
  return new GitHubRestClient({
    apiUrl: github.url,
    credential: { kind: 'token', token: TOKEN },
    rateLimitStore: new MemoryRateLimitStore(),
    writeSpacingMs: 0,
    retrySchedule: { verifyDelaysMs: [0, 50], propagationDelaysMs: [0, 50] },
  })
}

gitHubClientContract('GitHubRestClient', async (): Promise<ForgeUnderTest> => {
  const github = await EmulatedGitHub.start()
  const clients = [createClient(github), createClient(github)] as const
  return {
    client: clients[0],
    otherClient: clients[1],
    gitUrl: (owner, name) => github.backend.repositoryPath(owner, name),
    deleteRepository: (owner, name) => github.delete(owner, name),
    async close() {
      await Promise.all(clients.map((client) => client.close()))
      await github.close()
      expect(github.violations).toEqual([])
    },
  }
})

test('pushes 1,000 files in two git requests, and removes its ownership marker', async () => {
  const github = await EmulatedGitHub.start()
  const client = createClient(github)
  try {
    const packed = await packContents(codeFiles(1_000), SAMPLE_PLAN)
    const input: EnsureRepositoryInput = {
      owner: 'acme',
      name: 'site',
      visibility: 'PRIVATE',
      description: 'A site',
      intentId: 'one',
      knownId: null,
      branch: 'main',
      plannedCommit: packed.commit,
    }
    const { id } = await client.ensureRepository(input, context)
    github.requests.length = 0
    const push = { owner: 'acme', name: 'site', repositoryId: id, branch: 'main', expectedHead: null }
    await client.pushContents({ ...push, contents: inMemory(packed) }, context)
    expect(github.requests).toEqual([
      'GET /repos/acme/site',
      'GET /acme/site.git/info/refs?service=git-receive-pack',
      'POST /acme/site.git/git-receive-pack',
      'PATCH /repos/acme/site',
    ])
    const response = await fetch(`${github.url}/repos/acme/site`, {
      headers: { authorization: `Bearer ${TOKEN}` },
    })
    expect(await response.json()).toMatchObject({ description: 'A site', homepage: '', private: true })
  } finally {
    await client.close()
    await github.close()
  }
})
