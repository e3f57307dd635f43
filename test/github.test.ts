import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals'
import { deployWithTwoCrashes, type Interceptable } from './support/deploy-with-crashes.ts'
import { EmulatedGitHub, TOKEN } from './support/github/emulated-github.ts'
import { FaultGitHub } from './support/github/fault-github.ts'
import { git } from './support/github/git.ts'
import { DEPLOY_MUTATION, type DeployResult, deployInput } from './support/inputs.ts'
import { withTimeout } from './support/processes.ts'
import { createTestDatabase, type TestDatabase } from './support/test-database.ts'
import { TestServer } from './support/test-server.ts'
import { type ReceivedEvent, Viewer } from './support/viewer.ts'

/** Deployments killed twice, at random requests. For a longer run: `KILLS=60 npm test -- test/github` */
const KILLS = Number(process.env.KILLS ?? 3)
const CREATE = /^POST \/orgs\/acme\/repos$/
const DEPLOYMENT = `query ($id: ID!) { deployment(id: $id) {
  id status step text waitingUntil repositoryUrl cloneUrl commitSha error { code message retryable step }
  events { text status error { code message } }
} }`

const SETTINGS = { GITHUB_WRITE_SPACING_MS: '0', LEASE_MS: '600', LOG_LEVEL: 'debug' }

let github: FaultGitHub
let database: TestDatabase
let server: TestServer
/** All logs, events and responses of the server, to be searched for secrets. */
const outputs: string[] = []

beforeAll(async () => {
  github = await FaultGitHub.start()
  database = await createTestDatabase()
  server = await TestServer.start({
    env: {
      ...SETTINGS,
      DATABASE_URL: database.url,
      GITHUB_API_URL: github.url,
      GITHUB_TOKEN: github.token,
    },
  })
})

afterAll(async () => {
  await server.stop()
  await server.removeData()
  await database.drop()
  await github.close()
})

beforeEach(() => {
  github.clearFaults()
  github.requests.length = 0
})

async function deploy(overrides: Record<string, unknown> = {}): Promise<{ id: string; repo: string }> {
  const input = deployInput(overrides)
  const { data, errors } = await server.request<DeployResult>(DEPLOY_MUTATION, { input })
  if (errors) throw new Error(JSON.stringify(errors))
  return { id: data.deploy.id, repo: String(input.repo) }
}

/** A deployment's events to the end, or to the first one that matches `isLast`. */
async function follow(id: string, isLast?: (event: ReceivedEvent) => boolean): Promise<ReceivedEvent[]> {
  const viewer = new Viewer(server.socketUrl)
  await viewer.connected()
  viewer.follow({ deploymentId: id })
  if (isLast) await viewer.waitUntil(() => viewer.events.some(isLast))
  const events = isLast ? viewer.events : await viewer.waitForEnd(id)
  outputs.push(JSON.stringify(events))
  await viewer.close()
  return events
}

async function kill(): Promise<void> {
  await server.kill()
  outputs.push(server.log)
}

async function restart(): Promise<void> {
  await kill()
  await server.start()
}

async function expectDone(id: string, repo: string): Promise<void> {
  await expectPushed(repo, (await follow(id)).at(-1))
}

async function expectPushed(repo: string, last: ReceivedEvent | undefined): Promise<void> {
  expect(last).toMatchObject({ step: 'DONE', status: 'SUCCEEDED', error: null })
  const path = github.backend.repositoryPath('acme', repo)
  expect(await git(path, 'fsck', '--full', '--strict')).toBe('')
  expect((await git(path, 'rev-list', '--all')).trim()).toBe(last?.deployment.commitSha)
  expect(github.repositories.get(`acme/${repo}`)).toMatchObject({ homepage: null, private: true })
}

test('deploys to GitHub with only a token, and publishes each step', async () => {
  const { id, repo } = await deploy({ description: 'A demo' })
  await expectDone(id, repo)
  const { data } = await server.request(DEPLOYMENT, { id })
  expect(data).toMatchObject({
    deployment: {
      repositoryUrl: `${github.origin}/acme/${repo}`,
      cloneUrl: `${github.origin}/acme/${repo}.git`,
      events: ['Creating org', 'Creating repo', 'Pushing contents', 'Done!', 'Done!'].map((text) => ({
        text,
      })),
    },
  })
  expect(github.repositories.get(`acme/${repo}`)?.description).toBe('A demo')
})

describe('killed with SIGKILL', () => {
  test.each([
    ['after GitHub has created the repository but not responded', CREATE],
    ['after GitHub has accepted the contents but not responded', /^POST .*git-receive-pack$/],
    ['after GitHub has applied the last write but not responded', /^PATCH/],
  ])('%s, continues to one repository and one commit', async (_case, pattern) => {
    const killed = Promise.withResolvers<void>()
    github.next(pattern, async (apply) => {
      await apply()
      await kill()
      killed.resolve()
      return null
    })
    const { id, repo } = await deploy()
    await withTimeout(killed.promise, `GitHub receives ${pattern}`)
    await server.start()
    await expectDone(id, repo)
    expect(github.countRequests(CREATE)).toBe(1)
  })

  test(
    `twice each, at random requests, ${KILLS} deployments end with one repository and one commit each`,
    async () => {
      const interceptable: Interceptable = {
        intercept(interception) {
          github.clearFaults()
          if (interception)
            github.always(/./, async (apply) => ((await interception(apply)) ? null : undefined))
        },
      }
      for (let n = 0; n < KILLS; n++) {
        const { repo, last } = await deployWithTwoCrashes(server, interceptable, () =>
          outputs.push(server.log),
        )
        await expectPushed(repo, last)
        // Only one repository, and no attempt at a second.
        expect([...github.repositories.keys()].filter((name) => name === `acme/${repo}`)).toHaveLength(1)
      }
    },
    60_000 + KILLS * 15_000,
  )

  test(
    `twice each, with emulate for GitHub's API and git's own server, ${KILLS} deployments end likewise`,
    async () => {
      const emulated = await EmulatedGitHub.start()
      const emulatedDatabase = await createTestDatabase()
      const node = await TestServer.start({
        env: {
          ...SETTINGS,
          DATABASE_URL: emulatedDatabase.url,
          GITHUB_API_URL: emulated.url,
          GITHUB_TOKEN: TOKEN,
        },
      })
      try {
        for (let n = 0; n < KILLS; n++) {
          const { repo, last } = await deployWithTwoCrashes(node, emulated)
          expect(last).toMatchObject({ step: 'DONE', status: 'SUCCEEDED', error: null })
          const path = emulated.backend.repositoryPath('acme', repo)
          expect(await git(path, 'fsck', '--full', '--strict')).toBe('')
          expect((await git(path, 'rev-list', '--all')).trim()).toBe(last?.deployment.commitSha)
          expect(await emulated.homepage('acme', repo)).toBe('')
          expect(emulated.created.filter((name) => name === `acme/${repo}`)).toHaveLength(1)
        }
        expect(emulated.violations).toEqual([])
      } finally {
        await node.stop()
        await node.removeData()
        await emulatedDatabase.drop()
        await emulated.close()
      }
    },
    60_000 + KILLS * 15_000,
  )
})

describe('an obstacle', () => {
  test.each([
    [
      'a repository of that name',
      'REPO_TAKEN',
      'CREATE_ORG',
      () => github.addRepository('acme', 'taken-site').then(() => undefined),
    ],
    [
      'a missing permission',
      'FORBIDDEN',
      'CREATE_REPO',
      async () =>
        github.next(CREATE, () => ({
          status: 403,
          body: { message: `Resource not accessible by ${github.token}` },
          headers: { 'x-accepted-github-permissions': 'administration=write' },
        })),
    ],
    [
      'a missing organization',
      'ORG_MISSING',
      'CREATE_ORG',
      async () => {
        github.always(/^GET \/orgs\/acme$/, () => ({ status: 404, body: { message: 'Not Found' } }))
        github.next(/admin/, () => ({ status: 404, body: { message: 'Not Found' } }))
      },
    ],
  ])('%s is reported as %s, and a retry succeeds once it is gone', async (obstacle, code, step, arrange) => {
    await arrange()
    const { id, repo } = await deploy({
      repo: obstacle === 'a repository of that name' ? 'taken-site' : `demo-${code.toLowerCase()}`,
    })
    const failed = (await follow(id)).at(-1)
    expect(failed).toMatchObject({ status: 'FAILED', error: { code, step, retryable: true } })
    outputs.push(JSON.stringify(await server.request(DEPLOYMENT, { id })))
    github.clearFaults()
    github.repositories.delete('acme/taken-site')
    await server.request('mutation ($id: ID!) { retryDeployment(id: $id) { id } }', { id })
    const events = await follow(id, (event) => event.status === 'SUCCEEDED')
    expect(events.at(-1)?.status).toBe('SUCCEEDED')
    expect(github.repositories.has(`acme/${repo}`)).toBe(true)
  })

  test('a former name of another repository is reported as such, and cannot be retried', async () => {
    await github.addRepository('acme', 'old-name')
    await github.rename('acme/old-name', 'acme/new-name')
    const { id } = await deploy({ repo: 'old-name' })
    expect((await follow(id)).at(-1)).toMatchObject({
      status: 'FAILED',
      error: {
        code: 'REPO_TAKEN',
        retryable: false,
        message: expect.stringMatching(/former name of acme\/new-name.*another name/),
      },
    })
    const { errors } = await server.request('mutation ($id: ID!) { retryDeployment(id: $id) { id } }', { id })
    expect(errors).toMatchObject([{ extensions: { code: 'CONFLICT' } }])
  })

  test('a push declined for twelve secrets reports each path and URL, and can be retried once they are allowed', async () => {
    const found = Array.from({ length: 12 }, (_, n) => [
      `—— Some API Key ${n} ————————————`,
      `   path: ${'folder/'.repeat(20)}${n}.ts:3`,
      `   https://github.com/acme/secrets/security/secret-scanning/unblock-secret/2gakJrAududURpxlhIZdNlX1${n}`,
    ])
    const lines = [
      'error: GH013: Repository rule violations found.',
      '- Push cannot contain secrets',
      ...found.flat(),
    ]
    const hook = `cat >&2 <<'end'\n${lines.join('\n')}\nend\nexit 1`
    github.next(CREATE, async (apply) => {
      const response = await apply()
      await github.backend.create('acme', 'secrets', hook)
      return response
    })
    const { id, repo } = await deploy({ repo: 'secrets' })
    const failed = (await follow(id)).at(-1)
    expect(failed).toMatchObject({ status: 'FAILED', error: { code: 'PUSH_REJECTED', retryable: true } })
    const query = 'query ($id: ID!) { deployment(id: $id) { error { message } } }'
    const { data } = await server.request<{ deployment: { error: { message: string } } }>(query, { id })
    for (const message of [failed?.error?.message, data.deployment.error.message]) {
      for (let n = 0; n < 12; n++) {
        expect(message).toContain(`${'folder/'.repeat(20)}${n}.ts:3 https://github.com/acme/secrets/security`)
        expect(message).toContain(`unblock-secret/2gakJrAududURpxlhIZdNlX1${n} `)
      }
    }
    expect(server.log).toContain('GitHub declined a push')
    await github.backend.create('acme', 'secrets', 'exit 0')
    await server.request('mutation ($id: ID!) { retryDeployment(id: $id) { id } }', { id })
    await follow(id, (event) => event.status === 'SUCCEEDED')
    expect(github.repositories.get(`acme/${repo}`)?.homepage).toBeNull()
  })

  test('a rate limit keeps all deployments of the credential WAITING across a restart, then they continue automatically', async () => {
    github.next(CREATE, () => ({
      status: 403,
      body: { message: 'You have exceeded a secondary rate limit.' },
      headers: { 'retry-after': '4' },
    }))
    const first = await deploy()
    const isWaiting = (event: ReceivedEvent) => event.status === 'WAITING'
    expect((await follow(first.id, isWaiting)).at(-1)).toMatchObject({
      text: "Creating repo: waiting for GitHub's rate limit",
      error: { code: 'RATE_LIMITED', retryable: true, step: 'CREATE_REPO' },
    })
    const requestCount = github.requests.length
    const second = await deploy()
    expect((await follow(second.id, isWaiting)).at(-1)?.text).toBe(
      "Creating org: waiting for GitHub's rate limit",
    )
    const { data } = await server.request<{ deployment: { waitingUntil: string } }>(DEPLOYMENT, {
      id: second.id,
    })
    expect(Date.parse(data.deployment.waitingUntil)).toBeGreaterThan(0)
    await restart()
    expect(github.requests).toHaveLength(requestCount)
    await expectDone(first.id, first.repo)
    await expectDone(second.id, second.repo)
  })
})

test('the credential appears in no log, table or response; every request was valid', async () => {
  expect(github.violations).toEqual([])
  outputs.push(server.log)
  const tables = await database.database.query<{ name: string }>(
    `select tablename as name from pg_tables where schemaname = 'public'`,
  )
  expect(tables.map(({ name }) => name)).toContain('github_credentials')
  for (const { name } of tables) {
    const rows = await database.database.query(`select row_to_json(t) as row from ${name} t`)
    outputs.push(JSON.stringify(rows))
  }
  outputs.push(
    JSON.stringify(
      await server.request('{ deployments(first: 100) { edges { node { id text error { message } } } } }'),
    ),
  )
  const output = outputs.join('\n')
  expect(output).toContain('"message":"Step failed"')
  expect(output).toContain('"code":"FORBIDDEN"')
  expect(output).toContain('not accessible by ***')
  const basic = Buffer.from(`x-access-token:${github.token}`).toString('base64')
  for (const secret of [github.token, basic, Buffer.from(github.token).toString('base64')]) {
    expect(output.includes(secret)).toBe(false)
  }
})
