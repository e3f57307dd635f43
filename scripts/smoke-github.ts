// Makes all calls of a deployment to the real GitHub, in the organization that you name:
//   SMOKE_GITHUB_ORG=my-throwaway-org GITHUB_TOKEN=… npm run smoke:github
// Reads Shipcast's own settings. Creates one private repository with a random name,
// and deletes only that one.
import { createHash, randomBytes, randomUUID } from 'node:crypto'
import { Config, ConfigError } from '../src/config/config.ts'
import type { GitHubSettings } from '../src/config/github.config.ts'
import { ForgeError } from '../src/github/forge-error.ts'
import { preparedContents } from '../src/github/git/commit-pack.ts'
import { parseBody } from '../src/github/rest/github-api.ts'
import { connectToGitHub } from '../src/github/rest/github-connection.ts'
import { GitHubRestClient } from '../src/github/rest/github-rest-client.ts'
import { RepositoryBody } from '../src/github/rest/repositories.ts'
import { MemoryRateLimitStore } from '../test/support/github/memory-rate-limit-store.ts'
import { packContents } from '../test/support/github/pack-contents.ts'

const org = process.env.SMOKE_GITHUB_ORG
if (!org) {
  console.error(
    'Nothing was done. This test creates and deletes a repository on the GitHub that your settings name. Set SMOKE_GITHUB_ORG to the organization to use, for example: SMOKE_GITHUB_ORG=my-throwaway-org GITHUB_TOKEN=… npm run smoke:github',
  )
  process.exit(2)
}

const signal = AbortSignal.timeout(10 * 60_000)
const name = `shipcast-smoke-${randomUUID().slice(0, 8)}`
let repositoryId: string | undefined
try {
  const { github } = new Config({ ...process.env, FORGE: 'github' })
  if (!github) throw new Error('The settings do not configure GitHub.')
  const client = new GitHubRestClient({
    ...github,
    rateLimitStore: new MemoryRateLimitStore(),
    log: console.warn,
  })
  try {
    await deploy(client, org)
  } finally {
    await client.close()
    if (repositoryId !== undefined) await cleanUp(github, org, repositoryId)
  }
} catch (error) {
  console.error(error instanceof ConfigError || error instanceof ForgeError ? error.message : error)
  process.exitCode = 1
}

async function deploy(github: GitHubRestClient, owner: string): Promise<void> {
  const big = randomBytes(2 * 1024 * 1024)
  const packed = await packContents(
    [
      { path: 'README.md', content: Buffer.from('# A smoke test of Shipcast\n'), executable: false },
      { path: 'run.sh', content: Buffer.from('#!/bin/sh\necho done\n'), executable: true },
      { path: 'ünïcode/🚀 launch.txt', content: Buffer.from('beyond U+FFFF\n'), executable: false },
      // Above 1 MiB, to be sent in chunks.
      { path: 'big.bin', content: big, executable: false },
    ],
    {
      message: 'Initial commit\n',
      author: { name: 'Shipcast', email: 'shipcast@example.com' },
      unixSeconds: Math.floor(Date.now() / 1_000),
    },
  )
  const contents = preparedContents(
    packed,
    () => packed.packParts,
    async () => packed.index,
  )
  const input = {
    owner,
    name,
    visibility: 'PRIVATE',
    description: 'A smoke test of Shipcast; can be deleted',
    intentId: randomUUID(),
    knownId: null,
    branch: 'main',
    plannedCommit: packed.commit,
  } as const
  const context = { signal }
  report('organization', await github.ensureOrganization({ login: owner, repository: input }, context))
  const repository = report('create', await github.ensureRepository(input, context), 'created')
  repositoryId = repository.id
  report('create again, as after a crash', await github.ensureRepository(input, context), 'existed')
  const pushInput = { owner, name, repositoryId, branch: 'main', expectedHead: null, contents }
  report('push', await github.pushContents(pushInput, context), 'pushed')
  report('push again, as after a crash', await github.pushContents(pushInput, context), 'already-pushed')
  report('create again, after the push', await github.ensureRepository(input, context), 'existed')
  const head = await github.branchHead({ owner, name, branch: 'main' }, context)
  if (head !== packed.commit) throw new Error(`The branch is at ${head} instead of ${packed.commit}.`)
  const digest = createHash('sha256').update(big).digest('hex').slice(0, 12)
  console.log(`ok  the branch is at ${head}; big.bin is ${digest}…`)
  const otherInput = { ...input, intentId: randomUUID(), plannedCommit: '0'.repeat(40) }
  await github.ensureRepository(otherInput, context).then(
    () => Promise.reject(new Error('Another deployment got the repository.')),
    (error: { code?: string }) => {
      if (error.code !== 'REPO_TAKEN') throw error
      console.log('ok  another deployment gets REPO_TAKEN')
    },
  )
}

function report<Result extends { outcome: string }>(
  action: string,
  result: Result,
  expected?: string,
): Result {
  if (expected !== undefined && result.outcome !== expected) {
    throw new Error(`${action}: ${result.outcome} instead of ${expected}.`)
  }
  console.log(`ok  ${action}: ${result.outcome}`)
  return result
}

/** Deletes only what this run created: the same name and the same id. `GitHubRestClient` never deletes. */
async function cleanUp(github: GitHubSettings, owner: string, id: string): Promise<void> {
  const connection = connectToGitHub({ ...github, rateLimitStore: new MemoryRateLimitStore() })
  const call = {
    path: `/repos/${owner}/${name}`,
    owner,
    action: `delete ${owner}/${name}`,
    signal: AbortSignal.timeout(60_000),
  }
  try {
    const response = await connection.api.expect(200, { ...call, method: 'GET' })
    const current = parseBody(response, RepositoryBody)
    if (current.id !== id) throw new Error('Another repository has this name now.')
    await connection.api.expect(204, { ...call, method: 'DELETE' })
    console.log(`ok  ${owner}/${name} was deleted`)
  } catch (error) {
    console.error(`${owner}/${name} could not be deleted; delete it on GitHub.`, error)
    process.exitCode = 1
  } finally {
    await connection.close()
  }
}
