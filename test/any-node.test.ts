import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals'
import pg from 'pg'
import { Cluster } from './support/cluster.ts'
import { FaultGitHub } from './support/github/fault-github.ts'
import { DEPLOY_MUTATION, type DeployResult, deployInput } from './support/inputs.ts'
import { MAX_WAIT_MS, waitUntil, withTimeout } from './support/processes.ts'
import { createTestDatabase, type TestDatabase } from './support/test-database.ts'
import type { TestServer } from './support/test-server.ts'
import { type ReceivedEvent, Viewer } from './support/viewer.ts'

const LEASE_MS = 2_400
const CREATE = /^POST \/orgs\/acme\/repos$/
const CANCEL = 'mutation ($id: ID!) { cancelDeployment(id: $id) { id status } }'
const RETRY = 'mutation ($id: ID!) { retryDeployment(id: $id) { id attempt } }'

let github: FaultGitHub
let database: TestDatabase
let cluster: Cluster
let viewers: Viewer[]

/** Two nodes with few connections, and a fake GitHub. */
beforeAll(async () => {
  github = await FaultGitHub.start()
  github.orgs.set('blocked', { login: 'blocked', id: 10 })
  database = await createTestDatabase()
  cluster = await Cluster.start(
    { url: (_database, options) => `${database.url}&${new URLSearchParams(options)}`.replaceAll('+', '%20') },
    {
      size: 2,
      parameters: { pool_max: '2', connect_timeout: '2' },
      env: {
        GITHUB_API_URL: github.url,
        GITHUB_TOKEN: github.token,
        GITHUB_WRITE_SPACING_MS: '0',
        LEASE_MS: String(LEASE_MS),
      },
    },
  )
  viewers = cluster.nodes.map((node) => new Viewer(node.socketUrl))
  for (const viewer of viewers) {
    await viewer.connected()
    viewer.follow()
  }
})

afterAll(async () => {
  await Promise.all(viewers.map((viewer) => viewer.close()))
  await cluster.stop()
  await database.drop()
  await github.close()
})

beforeEach(() => github.clearFaults())

test('a node whose connections are all in use refuses requests, stays ready, continues its deployments, and recovers', async () => {
  const [busy] = cluster.nodes as [TestServer, TestServer]
  const created = holdCreate()
  const id = await cluster.deploy(newInput(), 0, MAX_WAIT_MS)
  await created.reached()
  const before = await leaseOf(id)
  const releaseLock = await blockAcceptance('blocked')
  const blocked = [1, 2].map(() =>
    busy.request<DeployResult>(DEPLOY_MUTATION, { input: newInput({ org: 'blocked' }) }),
  )
  await waitUntil(async () => (await countBlocked()) === 2, 'both connections are in use')

  const refused = await busy.request('{ deployments { edges { cursor } } }')
  expect(refused.errors).toMatchObject([
    { message: expect.stringContaining('Try again soon'), extensions: { code: 'INTERNAL' } },
  ])
  await waitUntil(
    async () => (await leaseOf(id)).until.getTime() > before.until.getTime() + LEASE_MS,
    'its lease is renewed',
  )
  expect(await leaseOf(id)).toMatchObject({ epoch: before.epoch, owner: before.owner })
  created.proceed()
  await allReceive(id, ({ step }) => step === 'CREATE_REPO')
  expect((await fetch(`${busy.url}/health/ready`)).status).toBe(200)
  expect(await countBlocked()).toBe(2)

  await releaseLock()
  const accepted = await Promise.all(blocked)
  for (const { data } of accepted) await allReceive(data.deploy.id, ({ status }) => status === 'SUCCEEDED')
  await allReceive(id, ({ status }) => status === 'SUCCEEDED')
  expectOnceAndInOrder(id)
})

describe('a deployment on another node', () => {
  test('is cancelled and retried here, and subscribers of both nodes receive it', async () => {
    const created = holdCreate()
    const id = await cluster.deploy(newInput(), 0, MAX_WAIT_MS)
    await created.reached()
    expect(await runnerOf(id)).toBe('node-0')
    expect(await request(1, CANCEL, id)).toMatchObject({ cancelDeployment: { status: 'CANCELLED' } })
    await allReceive(id, ({ status }) => status === 'CANCELLED')

    const again = holdCreate()
    expect(await request(1, RETRY, id)).toMatchObject({ retryDeployment: { attempt: 2 } })
    await again.reached()
    expect(await runnerOf(id)).toBe('node-1')
    created.proceed()
    again.proceed()
    await allReceive(id, ({ status }) => status === 'SUCCEEDED')
    expectOnceAndInOrder(id)
  })

  test('that has failed is retried here', async () => {
    github.next(CREATE, () => ({ status: 403, body: { message: 'Resource not accessible by token' } }))
    const id = await cluster.deploy(newInput(), 0, MAX_WAIT_MS)
    await allReceive(id, ({ status }) => status === 'FAILED')
    expect(await request(1, RETRY, id)).toMatchObject({ retryDeployment: { attempt: 2 } })
    await allReceive(id, ({ status }) => status === 'SUCCEEDED')
    expectOnceAndInOrder(id)
  })

  test('that waits for a retry is cancelled here', async () => {
    github.next(CREATE, () => ({
      status: 403,
      body: { message: 'You have exceeded a secondary rate limit.' },
      headers: { 'retry-after': '3600' },
    }))
    const id = await cluster.deploy(newInput(), 0, MAX_WAIT_MS)
    await allReceive(id, ({ status }) => status === 'WAITING')
    expect(await request(1, CANCEL, id)).toMatchObject({ cancelDeployment: { status: 'CANCELLED' } })
    await allReceive(id, ({ status }) => status === 'CANCELLED')
    expectOnceAndInOrder(id)
  })
})

/** Holds the next request to create a repository until `proceed` is called, or the caller gives up. */
function holdCreate(): { reached: () => Promise<void>; proceed: () => void } {
  const reached = Promise.withResolvers<void>()
  const proceeding = Promise.withResolvers<void>()
  github.next(CREATE, async (apply) => {
    reached.resolve()
    await proceeding.promise
    return apply()
  })
  return {
    reached: () => withTimeout(reached.promise, 'GitHub is asked to create the repository'),
    proceed: proceeding.resolve,
  }
}

/** Holds the lock that accepting a deployment of this organization takes (`next_queue_rank`). */
async function blockAcceptance(organization: string): Promise<() => Promise<void>> {
  const client = new pg.Client({ connectionString: database.url })
  await client.connect()
  // The lock is held until the transaction ends.
  await client.query('begin')
  await client.query('select next_queue_rank($1)', [organization])
  return () => client.end()
}

async function countBlocked(): Promise<number> {
  const [row] = await database.database.query<{ count: number }>(
    `select count(*) from pg_stat_activity where datname = current_database() and wait_event = 'advisory'`,
  )
  return row?.count ?? 0
}

async function leaseOf(id: string): Promise<{ owner: string; until: Date; epoch: number }> {
  const [lease] = await database.database.query<{ owner: string; until: Date; epoch: number }>(
    'select leased_by as owner, lease_expires_at as until, epoch from deployments where id = $1',
    [id],
  )
  if (!lease) throw new Error(`Deployment ${id} does not exist.`)
  return lease
}

async function runnerOf(id: string): Promise<string | undefined> {
  return cluster.nodeNamesByPid.get(Number((await leaseOf(id)).owner.split('/')[1]))
}

async function request(node: number, mutation: string, id: string): Promise<Record<string, unknown>> {
  const { data, errors } = await cluster.node(node).request(mutation, { id })
  if (errors) throw new Error(JSON.stringify(errors))
  return data
}

async function allReceive(id: string, isExpected: (event: ReceivedEvent) => boolean): Promise<void> {
  for (const viewer of viewers)
    await viewer.waitUntil(() => viewer.eventsOf(id).some(isExpected), `${isExpected} of ${id}`)
}

function expectOnceAndInOrder(id: string): void {
  for (const viewer of viewers) {
    const received = viewer.eventsOf(id).map(({ sequence }) => sequence)
    expect(received).toEqual(received.map((_, i) => i + 1))
  }
}

const newInput = (overrides = {}) => deployInput({ idempotencyKey: crypto.randomUUID(), ...overrides })
