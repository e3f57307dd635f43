import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals'
import { MockGitHub } from '../../../test/support/deployments/mock-github.ts'
import { LOCAL_REQUEST, TestNode, type TestNodeOptions } from '../../../test/support/deployments/test-node.ts'
import { waitUntil } from '../../../test/support/processes.ts'
import { createMigratedDatabase, type TestDatabase } from '../../../test/support/test-database.ts'
import type { LoggedEvent } from '../../events/deployment-event.ts'
import { ForgeError } from '../../github/forge-error.ts'
import { PostgresPubSub } from '../../pubsub/postgres-pubsub.ts'
import { MAX_RECLAIMS, MAX_RETRIES } from './retry-policy.ts'

let testDatabase: TestDatabase
let github: MockGitHub
let nodes: TestNode[]

beforeAll(async () => {
  testDatabase = await createMigratedDatabase()
})

afterAll(() => testDatabase.drop())

beforeEach(async () => {
  github = new MockGitHub()
  nodes = []
  await testDatabase.database.query(
    'truncate deployment_contents, events, deployments; update log set head = 0',
  )
})

afterEach(() => Promise.all(nodes.map((node) => node.stop())))

async function start(options: Partial<TestNodeOptions> = {}): Promise<TestNode> {
  const node = await TestNode.start({ database: testDatabase.database, github, ...options })
  nodes.push(node)
  return node
}

/** Makes every waiting deployment due now. */
async function makeDue(): Promise<void> {
  await testDatabase.database.query(
    `update deployments set run_at = clock_timestamp() where status = 'WAITING'`,
  )
}

const summaryOf = (events: readonly LoggedEvent[]) =>
  events.map(({ sequence, deployment: { step, status, text } }) => [sequence, step, status, text])

const hasStatus = (status: string) => (event: LoggedEvent) => event.deployment.status === status

const steps = (calls: readonly string[]) => calls.map((call) => call.split(' ')[0])

/** Pids of the connections that wait for a lock. */
async function waitingForLock(): Promise<number[]> {
  const rows = await testDatabase.database.query<{ pid: number }>(
    `select pid from pg_stat_activity
     where datname = current_database() and wait_event_type = 'Lock' and pid <> pg_backend_pid()`,
  )
  return rows.map(({ pid }) => pid)
}

async function leaseOf(id: string): Promise<{ epoch: number; expiresAt: Date }> {
  const [lease] = await testDatabase.database.query<{ epoch: number; expiresAt: Date }>(
    'select epoch, lease_expires_at as "expiresAt" from deployments where id = $1',
    [id],
  )
  if (!lease) throw new Error(`No deployment ${id}.`)
  return lease
}

test('runs the steps in order and reports each with the texts of the original', async () => {
  const node = await start()
  const id = await node.deploy({ org: 'acme', repo: 'demo' })
  const events = await node.eventsOf(id)
  expect(summaryOf(events)).toEqual([
    [1, 'DEPLOY', 'RUNNING', 'Creating org'],
    [2, 'CREATE_ORG', 'RUNNING', 'Creating repo'],
    [3, 'CREATE_REPO', 'RUNNING', 'Pushing contents'],
    [4, 'PUSH_CONTENTS', 'RUNNING', 'Done!'],
    [5, 'DONE', 'SUCCEEDED', 'Done!'],
  ])
  expect(github.calls).toEqual([
    'ensureOrganization acme',
    'ensureRepository acme/demo',
    'pushContents acme/demo',
    'branchHead acme/demo',
  ])
  expect(events[4]?.deployment).toMatchObject({
    repositoryUrl: 'https://forge.test/acme/demo',
    cloneUrl: 'https://forge.test/acme/demo.git',
    commitSha: expect.stringMatching(/^[0-9a-f]{40}$/),
    finishedAt: expect.any(String),
    progress: null,
  })
})

describe('a step fails', () => {
  test('for a transient reason: waits, reports until when, and resumes at the failed step', async () => {
    const node = await start()
    github.next('ensureRepository', new ForgeError('TRANSIENT', 'Busy.'))
    const id = await node.deploy()
    const waiting = (await node.eventsOf(id, hasStatus('WAITING'))).at(-1)
    expect(waiting?.deployment).toMatchObject({
      step: 'CREATE_ORG',
      text: 'Creating repo: trying again (1 of 8)',
      error: { code: 'TRANSIENT', message: 'Busy.', retryable: true, step: 'CREATE_REPO' },
    })
    expect(Date.parse(waiting?.deployment.waitingUntil ?? '')).toBeGreaterThan(
      waiting?.at.getTime() ?? Infinity,
    )
    await makeDue()
    const events = await node.eventsOf(id)
    expect(summaryOf(events).slice(2, 4)).toEqual([
      [3, 'CREATE_ORG', 'WAITING', 'Creating repo: trying again (1 of 8)'],
      [4, 'CREATE_ORG', 'RUNNING', 'Creating repo'],
    ])
    expect(events.at(-1)?.deployment).toMatchObject({ status: 'SUCCEEDED', error: null, waitingUntil: null })
    expect(steps(github.calls)).toEqual([
      'ensureOrganization',
      'ensureRepository',
      'ensureRepository',
      'pushContents',
      'branchHead',
    ])
  })

  test('for a transient reason at every retry: the deployment fails', async () => {
    const node = await start()
    const errors = Array.from({ length: MAX_RETRIES + 1 }, () => new ForgeError('TRANSIENT', 'Busy.'))
    github.next('ensureOrganization', ...errors)
    const id = await node.deploy()
    for (let retry = 1; retry <= MAX_RETRIES; retry++) {
      await node.eventsOf(id, (event) => event.deployment.text.includes(`(${retry} of ${MAX_RETRIES})`))
      await makeDue()
      node.runner.pollNow()
    }
    const last = (await node.eventsOf(id)).at(-1)
    expect(last?.deployment).toMatchObject({
      status: 'FAILED',
      text: 'Creating org failed',
      error: { code: 'TRANSIENT', retryable: true, step: 'CREATE_ORG' },
    })
    expect(github.calls).toHaveLength(MAX_RETRIES + 1)
  })

  test('because of a rate limit: waits until the given time, frees its slot, and does not count as a retry', async () => {
    const node = await start({ concurrency: 1 })
    const retryAt = new Date(Date.now() + 3_600_000)
    github.next('ensureRepository', new ForgeError('RATE_LIMITED', 'Not before then.', { retryAt }))
    const id = await node.deploy()
    const waiting = (await node.eventsOf(id, hasStatus('WAITING'))).at(-1)
    expect(waiting?.deployment).toMatchObject({
      text: "Creating repo: waiting for GitHub's rate limit",
      error: { code: 'RATE_LIMITED', message: 'Not before then.', retryable: true, step: 'CREATE_REPO' },
    })
    expect(Math.abs(Date.parse(waiting?.deployment.waitingUntil ?? '') - retryAt.getTime())).toBeLessThan(
      60_000,
    )
    expect((await node.eventsOf(await node.deploy())).at(-1)?.deployment.status).toBe('SUCCEEDED')
    const tries = () => testDatabase.database.query('select retry_count from deployments where id = $1', [id])
    expect(await tries()).toEqual([{ retry_count: 0 }])
    await makeDue()
    node.runner.pollNow()
    expect((await node.eventsOf(id)).at(-1)?.deployment).toMatchObject({
      status: 'SUCCEEDED',
      waitingUntil: null,
    })
  })

  test('because of a rate limit without a time: the deployment fails', async () => {
    const node = await start()
    github.next('ensureRepository', new ForgeError('RATE_LIMITED', 'Five times.'))
    expect((await node.eventsOf(await node.deploy())).at(-1)?.deployment).toMatchObject({
      status: 'FAILED',
      error: { code: 'RATE_LIMITED', retryable: true },
    })
  })

  test('for a reason that a person can fix: fails at once, and a retry resumes at the failed step', async () => {
    const node = await start()
    github.next('ensureRepository', new ForgeError('REPO_TAKEN', 'The name is in use. Choose another.'))
    const id = await node.deploy()
    const failed = (await node.eventsOf(id)).at(-1)
    expect(failed?.deployment).toMatchObject({
      status: 'FAILED',
      step: 'CREATE_ORG',
      text: 'Creating repo failed',
      attempt: 1,
      error: {
        code: 'REPO_TAKEN',
        message: 'The name is in use. Choose another.',
        retryable: true,
        step: 'CREATE_REPO',
      },
    })
    const retried = await node.service.retry(id, LOCAL_REQUEST)
    expect(retried).toMatchObject({
      status: 'RUNNING',
      step: 'CREATE_ORG',
      text: 'Creating repo',
      attempt: 2,
      error: null,
    })
    const events = await node.eventsOf(id, hasStatus('SUCCEEDED'))
    expect(events.map(({ sequence }) => sequence)).toEqual([1, 2, 3, 4, 5, 6, 7])
    expect(steps(github.calls).filter((call) => call === 'ensureOrganization')).toHaveLength(1)
    await expect(node.service.retry(id, LOCAL_REQUEST)).rejects.toMatchObject({
      extensions: { code: 'CONFLICT' },
    })
  })

  test('for an internal reason: hides the details and gives an id to report', async () => {
    const node = await start()
    github.next('pushContents', new TypeError('secret detail'))
    const failed = (await node.eventsOf(await node.deploy())).at(-1)
    expect(failed?.deployment.error).toMatchObject({
      code: 'INTERNAL',
      retryable: true,
      step: 'PUSH_CONTENTS',
    })
    expect(JSON.stringify(failed)).not.toContain('secret detail')
    expect(failed?.deployment.error?.message).toMatch(/[0-9a-f]{8}-/)
  })

  test('at the final verification, because the branch was moved: never reports it as done', async () => {
    const node = await start()
    const hanging = github.hang('pushContents')
    const id = await node.deploy()
    await hanging.reached
    github.next('branchHead', new ForgeError('REF_MOVED', 'Moved.'))
    hanging.resume()
    const last = (await node.eventsOf(id)).at(-1)
    expect(last?.deployment).toMatchObject({
      status: 'FAILED',
      step: 'PUSH_CONTENTS',
      error: { step: 'DONE' },
    })
  })
})

describe('cancelling', () => {
  test('aborts the call in flight and returns the cancelled deployment', async () => {
    const node = await start()
    const hanging = github.hang('ensureRepository')
    const id = await node.deploy()
    await hanging.reached
    const cancelled = await node.service.cancel(id, LOCAL_REQUEST)
    expect(cancelled).toMatchObject({ status: 'CANCELLED', step: 'CREATE_ORG', text: 'Cancelled' })
    expect(steps(github.calls)).toEqual(['ensureOrganization', 'ensureRepository'])
    expect(await node.service.cancel(id, LOCAL_REQUEST)).toEqual(cancelled)
    await node.service.retry(id, LOCAL_REQUEST)
    expect((await node.eventsOf(id, hasStatus('SUCCEEDED'))).at(-1)?.deployment.attempt).toBe(2)
    await expect(node.service.cancel(id, LOCAL_REQUEST)).rejects.toMatchObject({
      extensions: { code: 'CONFLICT' },
    })
  })

  test('accepts the id in upper case, equally fast', async () => {
    const node = await start({ leaseMs: 600_000 })
    const hanging = github.hang('ensureRepository')
    const id = await node.deploy()
    await hanging.reached
    expect(await node.service.cancel(id.toUpperCase(), LOCAL_REQUEST)).toMatchObject({
      id,
      status: 'CANCELLED',
    })
  })

  test('cancels a deployment that begins to wait at that moment', async () => {
    const node = await start()
    const hanging = github.hang('ensureOrganization')
    const id = await node.deploy()
    await hanging.reached
    const { cancelling } = await testDatabase.database.transaction(async (tx) => {
      await tx.query('select from deployments where id = $1 for update', [id])
      const cancelling = node.service.cancel(id, LOCAL_REQUEST)
      // It has found the deployment running; its update waits for the row.
      await waitUntil(async () => (await waitingForLock()).length > 0, 'the cancellation waits for the row')
      await tx.query(
        `update deployments set status = 'WAITING', epoch = epoch + 1, run_at = now() + interval '1 hour' where id = $1`,
        [id],
      )
      return { cancelling }
    })
    expect(await cancelling).toMatchObject({ status: 'CANCELLED' })
  })

  test('reaches the runner on another node at once', async () => {
    const [here, there] = [
      new PostgresPubSub(testDatabase.database),
      new PostgresPubSub(testDatabase.database),
    ]
    await Promise.all([here.start(), there.start()])
    const node = await start({ leaseMs: 600_000, pubSub: here })
    const other = await start({ leaseMs: 600_000, pubSub: there })
    const hanging = github.hang('ensureRepository')
    const id = await node.deploy()
    await hanging.reached
    expect(await other.service.cancel(id, LOCAL_REQUEST)).toMatchObject({ status: 'CANCELLED' })
    await Promise.all([here.close(), there.close()])
  })

  test('reaches the runner on another node by its heartbeat if the signal is lost', async () => {
    const node = await start({ leaseMs: 1_500 })
    const other = await start({ leaseMs: 1_500 })
    const hanging = github.hang('ensureRepository')
    const id = await node.deploy()
    await hanging.reached
    expect(await other.service.cancel(id, LOCAL_REQUEST)).toMatchObject({ status: 'CANCELLED' })
  })

  test('cancels a waiting deployment, which does not run when it becomes due', async () => {
    const node = await start()
    github.next('ensureOrganization', new ForgeError('TRANSIENT', 'Busy.'))
    const id = await node.deploy()
    await node.eventsOf(id, hasStatus('WAITING'))
    expect(await node.service.cancel(id, LOCAL_REQUEST)).toMatchObject({
      status: 'CANCELLED',
      waitingUntil: null,
    })
    await makeDue()
    node.runner.pollNow()
    await node.eventsOf(await node.deploy())
    expect(steps(github.calls).filter((call) => call === 'ensureOrganization')).toHaveLength(2)
  })
})

test('a run whose result could not be stored is reclaimed, even while its node runs others', async () => {
  const node = await start({ leaseMs: 900 })
  const busy = github.hang('ensureOrganization')
  await node.deploy()
  await busy.reached
  const broken = github.hang('ensureRepository')
  const id = await node.deploy()
  await broken.reached
  // The write of its step waits for the log; its connection is cut meanwhile.
  await testDatabase.database.transaction(async (tx) => {
    await tx.query('select from log for update')
    broken.resume()
    await waitUntil(async () => {
      const pids = await waitingForLock()
      for (const pid of pids) await tx.query('select pg_terminate_backend($1)', [pid])
      return pids.length > 0
    }, 'the write waits')
  })
  expect((await node.eventsOf(id)).at(-1)?.deployment.status).toBe('SUCCEEDED')
  busy.resume()
})

describe('slots', () => {
  test('limit how many deployments run at once; the rest are QUEUED in order', async () => {
    const node = await start({ concurrency: 1 })
    const hanging = github.hang('ensureOrganization')
    const first = await node.deploy({ org: 'org-0' })
    await hanging.reached
    const rest: string[] = []
    for (let i = 1; i <= 5; i++) rest.push(await node.deploy({ org: `org-${i}` }))
    for (const id of rest) {
      expect(await node.store.find(id)).toMatchObject({
        status: 'QUEUED',
        text: 'Waiting for a free runner',
        sequence: 1,
      })
    }
    hanging.resume()
    for (const id of [first, ...rest]) await node.eventsOf(id)
    const started = github.calls.filter((call) => call.startsWith('ensureOrganization'))
    expect(started).toEqual([0, 1, 2, 3, 4, 5].map((i) => `ensureOrganization org-${i}`))
    expect(summaryOf(await node.eventsOf(rest[0]!)).slice(0, 3)).toEqual([
      [1, 'DEPLOY', 'QUEUED', 'Waiting for a free runner'],
      [2, 'DEPLOY', 'RUNNING', 'Creating org'],
      [3, 'CREATE_ORG', 'RUNNING', 'Creating repo'],
    ])
  })

  test('are shared in turn: thirty deployments of one organization do not delay another', async () => {
    const node = await start({ concurrency: 1 })
    const hanging = github.hang('ensureOrganization')
    const first = await node.deploy({ org: 'many' })
    await hanging.reached
    // All at once, for a class for example.
    const many = await Promise.all(Array.from({ length: 30 }, () => node.deploy({ org: 'many' })))
    const few = [await node.deploy({ org: 'few' }), await node.deploy({ org: 'Few' })]
    const one = await node.deploy({ org: 'one' })
    hanging.resume()
    for (const id of [first, ...many, ...few, one]) await node.eventsOf(id)
    const started = github.calls.filter((call) => call.startsWith('ensureOrganization'))
    expect(started.slice(0, 7).map((call) => call.split(' ')[1])).toEqual([
      'many',
      'few',
      'one',
      'many',
      'Few',
      'many',
      'many',
    ])
  })

  test('are assigned to a retry in turn, like to a new deployment', async () => {
    const node = await start({ concurrency: 1 })
    github.next('ensureOrganization', new ForgeError('REPO_TAKEN', 'No.'))
    const failed = await node.deploy({ org: 'many' })
    await node.eventsOf(failed)
    const hanging = github.hang('ensureOrganization')
    const running = await node.deploy({ org: 'many' })
    await hanging.reached
    const rest = [await node.deploy({ org: 'many' }), await node.deploy({ org: 'other' })]
    await node.service.retry(failed, LOCAL_REQUEST)
    hanging.resume()
    for (const id of [running, ...rest]) await node.eventsOf(id)
    const last = (await node.eventsOf(failed, hasStatus('SUCCEEDED'))).at(-1)
    expect(last?.deployment.attempt).toBe(2)
    const started = await testDatabase.database.query<{ id: string }>(
      `select deployment_id as id from events
       where deployment ->> 'status' = 'RUNNING' and deployment ->> 'step' = 'DEPLOY' order by position`,
    )
    expect(started.map(({ id }) => id)).toEqual([failed, running, rest[1], rest[0], failed])
  })

  test('are assigned by one index lookup, however many deployments wait', async () => {
    await testDatabase.database.query(
      `insert into deployments (id, org, repo, visibility, branch, step, status, text, sequence, attempt, file_count,
         size_bytes, created_at, updated_at, input_digest, planned_commit, planned_tree, object_count, pack_bytes,
         run_at, queue_rank)
       select gen_random_uuid(), 'org-' || n % 7, 'repo-' || n, 'PUBLIC', 'main', 'DEPLOY', 'QUEUED', '', 1, 1, 0, 0,
         now(), now(), '', '', '', 0, 0, now(), n / 7 from generate_series(1, 20000) n`,
    )
    await testDatabase.database.query('analyze deployments')
    const plan = async (query: string) => {
      const rows = await testDatabase.database.query<{ 'QUERY PLAN': string }>(`explain ${query}`)
      return rows.map((row) => row['QUERY PLAN']).join('\n')
    }
    const claim = await plan(
      `select id from deployments where status in ('QUEUED', 'WAITING') and run_at <= clock_timestamp()
       order by queue_rank, run_at limit 1 for update skip locked`,
    )
    expect(claim).toContain('deployments_queue')
    expect(claim).not.toMatch(/Sort|Seq Scan/)
    const next = await plan(
      `select max(queue_rank) + 1 from deployments
       where lower(org) = lower('org-3') and status in ('QUEUED', 'RUNNING', 'WAITING')`,
    )
    expect(next).toContain('deployments_queue_rank_by_organization')
  })

  test('are taken over at once after a planned stop of a node', async () => {
    const node = await start({ leaseMs: 600_000 })
    const hanging = github.hang('ensureRepository')
    const id = await node.deploy()
    await hanging.reached
    const other = await start({ leaseMs: 600_000 })
    const again = github.hang('ensureRepository')
    await node.stop()
    other.runner.pollNow()
    await again.reached
    // No runner died.
    const [row] = await testDatabase.database.query('select reclaim_count from deployments where id = $1', [
      id,
    ])
    expect(row).toEqual({ reclaim_count: 0 })
    again.resume()
    const events = await other.eventsOf(id)
    expect(summaryOf(events).map(([sequence]) => sequence)).toEqual([1, 2, 3, 4, 5])
    expect(events.at(-1)?.deployment.status).toBe('SUCCEEDED')
  })
})

describe('a runner without a heartbeat', () => {
  test('loses its deployment to another node, and nothing it does afterwards is stored', async () => {
    const zombie = await start({ leaseMs: 600 })
    zombie.silence()
    const hanging = github.hang('ensureRepository', { ignoresAbort: true })
    const id = await zombie.deploy()
    await hanging.reached
    const other = await start({ leaseMs: 600 })
    const events = await other.eventsOf(id)
    hanging.resume()
    await zombie.stop()
    expect(events.at(-1)?.deployment.status).toBe('SUCCEEDED')
    expect(await other.log.readRanges([{ deploymentId: id, sequence: 0, limit: 100 }])).toEqual([events])
    expect(steps(github.calls)).toEqual([
      'ensureOrganization',
      'ensureRepository',
      'ensureRepository',
      'pushContents',
      'branchHead',
    ])
  })

  test('aborts its own call before another node can repeat it', async () => {
    const zombie = await start({ leaseMs: 1_500 })
    zombie.silence()
    const hanging = github.hang('ensureRepository')
    const id = await zombie.deploy()
    await hanging.reached
    let callsInFlight = -1
    github.next('ensureRepository', () => {
      callsInFlight = github.callsInFlight
    })
    const other = await start({ leaseMs: 1_500 })
    const polling = setInterval(() => other.runner.pollNow(), 5)
    expect((await other.eventsOf(id)).at(-1)?.deployment.status).toBe('SUCCEEDED')
    clearInterval(polling)
    // Only the second call itself.
    expect(callsInFlight).toBe(1)
  })

  test('can reclaim its own deployment, and controls the new run', async () => {
    const node = await start({ leaseMs: 600 })
    node.silence()
    const before = github.hang('ensureRepository', { ignoresAbort: true })
    const id = await node.deploy()
    await before.reached
    const again = github.hang('ensureRepository')
    await again.reached
    node.unsilence()
    before.resume()
    // The writes of another deployment follow those with which the old run ends.
    await node.eventsOf(await node.deploy())
    // The end of the old run does not end the new one, whose lease is renewed and which can be cancelled.
    const lease = await leaseOf(id)
    await waitUntil(async () => (await leaseOf(id)).expiresAt > lease.expiresAt, 'the lease is renewed')
    expect((await leaseOf(id)).epoch).toBe(lease.epoch)
    expect(await node.service.cancel(id, LOCAL_REQUEST)).toMatchObject({ status: 'CANCELLED' })
  })

  test('leaves its deployment QUEUED if no node has a free slot', async () => {
    // Its slot stays in use, so it cannot reclaim the deployment itself.
    const zombie = await start({ leaseMs: 600, concurrency: 1 })
    zombie.silence()
    // Longer, so that its own lease does not expire on a busy machine.
    const busy = await start({ leaseMs: 3_000, concurrency: 1 })
    const atZombie = github.hang('ensureRepository', { ignoresAbort: true })
    const id = await zombie.deploy()
    await atZombie.reached
    const atBusy = github.hang('ensureOrganization')
    const blocker = await busy.deploy()
    await atBusy.reached
    const events = await busy.eventsOf(id, hasStatus('QUEUED'))
    expect(events.at(-1)?.deployment.text).toBe('Waiting for a free runner')
    atBusy.resume()
    await busy.eventsOf(blocker)
    expect((await busy.eventsOf(id)).at(-1)?.deployment.status).toBe('SUCCEEDED')
    atZombie.resume()
  })

  test('fails a deployment whose runners keep dying at the same step', async () => {
    const node = await start()
    const hanging = github.hang('ensureOrganization')
    const id = await node.deploy()
    await hanging.reached
    await testDatabase.database.query(
      'update deployments set reclaim_count = $1, epoch = epoch + 1, lease_expires_at = now() where id = $2',
      [MAX_RECLAIMS, id],
    )
    node.runner.pollNow()
    const other = await start()
    expect((await other.eventsOf(id)).at(-1)?.deployment).toMatchObject({
      status: 'FAILED',
      error: { code: 'RUNNER_DIED', retryable: true, step: 'CREATE_ORG' },
    })
  })
})
