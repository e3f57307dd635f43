import { expect, test } from '@jest/globals'
import { EmulatedGitHub, TOKEN } from '../../../test/support/github/emulated-github.ts'
import { MemoryRateLimitStore } from '../../../test/support/github/memory-rate-limit-store.ts'
import { packContents } from '../../../test/support/github/pack-contents.ts'
import { codeFiles, SAMPLE_PLAN } from '../../../test/support/github/sample-contents.ts'
import { type ForgeUnderTest, gitHubClientContract, inMemory } from '../github-client.contract.ts'
import { GitHubRestClient } from './github-rest-client.ts'

const calm = { signal: new AbortController().signal }

function clientOf(github: EmulatedGitHub): GitHubRestClient {
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
  const clients = [clientOf(github), clientOf(github)] as const
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

test('pushes 1,000 files in two git requests, and leaves nothing of its own behind', async () => {
  const github = await EmulatedGitHub.start()
  const client = clientOf(github)
  try {
    const packed = await packContents(codeFiles(1_000), SAMPLE_PLAN)
    const wish = { owner: 'acme', name: 'site', visibility: 'PRIVATE', description: 'A site' } as const
    const planned = { intentId: 'one', knownId: null, branch: 'main', plannedCommit: packed.commit }
    const { id } = await client.ensureRepository({ ...wish, ...planned }, calm)
    github.requests.length = 0
    const push = { owner: 'acme', name: 'site', repositoryId: id, branch: 'main', expectedHead: null }
    await client.pushContents({ ...push, contents: inMemory(packed) }, calm)
    expect(github.requests).toEqual([
      'GET /repos/acme/site',
      'GET /acme/site.git/info/refs?service=git-receive-pack',
      'POST /acme/site.git/git-receive-pack',
      'PATCH /repos/acme/site',
    ])
    const answer = await fetch(`${github.url}/repos/acme/site`, {
      headers: { authorization: `Bearer ${TOKEN}` },
    })
    expect(await answer.json()).toMatchObject({ description: 'A site', homepage: '', private: true })
  } finally {
    await client.close()
    await github.close()
  }
})
