import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals'
import { MockGitHub } from '../../../test/support/deployments/mock-github.ts'
import { LOCAL_REQUEST, TestNode, type TestNodeOptions } from '../../../test/support/deployments/test-node.ts'
import { waitUntil } from '../../../test/support/processes.ts'
import { createMigratedDatabase, type TestDatabase } from '../../../test/support/test-database.ts'
import type { AuditEntry } from '../../auth/audit-log.ts'
import type { LoggedEvent } from '../../events/deployment-event.ts'
import { ForgeError } from '../../github/forge-error.ts'
import { PostgresPubSub } from '../../pubsub/postgres-pubsub.ts'
import { MAX_RECLAIMS, MAX_RETRIES } from './retry-policy.ts'

let test_: TestDatabase
let github: MockGitHub
let nodes: TestNode[]

beforeAll(async () => {
  test_ = await createMigratedDatabase()
})

afterAll(() => test_.drop())

beforeEach(async () => {
  github = new MockGitHub()
  nodes = []
  await test_.database.query('truncate deployment_contents, events, deployments; update log set head = 0')
})

afterEach(() => Promise.all(nodes.map((node) => node.stop())))

async function start(options: Partial<TestNodeOptions> = {}): Promise<TestNode> {
  const node = await TestNode.start({ database: test_.database, github, ...options })
  nodes.push(node)
  return node
}

/** Makes what waits for its time due now. */
async function makeDue(): Promise<void> {
  await test_.database.query(`update deployments set run_at = clock_timestamp() where status = 'WAITING'`)
}

const told = (events: readonly LoggedEvent[]) =>
  events.map(({ sequence, deployment: { step, status, text } }) => [sequence, step, status, text])

const hasStatus = (status: string) => (event: LoggedEvent) => event.deployment.status === status

const steps = (calls: readonly string[]) => calls.map((call) => call.split(' ')[0])

test('takes the steps in order and tells each in the words of the original', async () => {
  const node = await start()
  const id = await node.deploy({ org: 'acme', repo: 'demo' })
  const events = await node.eventsOf(id)
  expect(told(events)).toEqual([
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

describe('a step that fails', () => {
  test('for a while waits, says until when, and goes on from there', async () => {
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
    expect(told(events).slice(2, 4)).toEqual([
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

  test('again and again has failed in the end', async () => {
    const node = await start()
    const faults = Array.from({ length: MAX_RETRIES + 1 }, () => new ForgeError('TRANSIENT', 'Busy.'))
    github.next('ensureOrganization', ...faults)
    const id = await node.deploy()
    for (let tries = 1; tries <= MAX_RETRIES; tries++) {
      await node.eventsOf(id, (event) => event.deployment.text.includes(`(${tries} of ${MAX_RETRIES})`))
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

  test('because the forge wants fewer requests waits until then, gives its place free, and that counts as no try', async () => {
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
    const retries = () => test_.database.query('select retry_count from deployments where id = $1', [id])
    expect(await retries()).toEqual([{ retry_count: 0 }])
    await makeDue()
    node.runner.pollNow()
    expect((await node.eventsOf(id)).at(-1)?.deployment).toMatchObject({
      status: 'SUCCEEDED',
      waitingUntil: null,
    })
  })

  test('because the forge has said so too often has failed', async () => {
    const node = await start()
    github.next('ensureRepository', new ForgeError('RATE_LIMITED', 'Five times.'))
    expect((await node.eventsOf(await node.deploy())).at(-1)?.deployment).toMatchObject({
      status: 'FAILED',
      error: { code: 'RATE_LIMITED', retryable: true },
    })
  })

  test('for a reason that a person can mend has failed at once, and a retry goes on from that step', async () => {
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

  test('for a reason that is our fault hides it, and gives an id to ask about', async () => {
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

  test('at the last look, because somebody moved the branch, is not told as done', async () => {
    const node = await start()
    const hanging = github.hang('pushContents')
    const id = await node.deploy()
    await hanging.reached
    github.next('branchHead', new ForgeError('REF_MOVED', 'Moved.'))
    hanging.goOn()
    const last = (await node.eventsOf(id)).at(-1)
    expect(last?.deployment).toMatchObject({
      status: 'FAILED',
      step: 'PUSH_CONTENTS',
      error: { step: 'DONE' },
    })
  })
})

describe('cancelling', () => {
  test('aborts the call in flight, and answers with the end', async () => {
    const node = await start()
    const hanging = github.hang('ensureRepository')
    const id = await node.deploy()
    await hanging.reached
    const cancelled = await node.service.cancel(id, LOCAL_REQUEST)
    expect(cancelled).toMatchObject({ status: 'CANCELLED', step: 'CREATE_ORG', text: 'Cancelled' })
    expect(steps(github.calls)).toEqual(['ensureOrganization', 'ensureRepository'])
    expect(await node.service.cancel(id, LOCAL_REQUEST)).toEqual(cancelled)
    // And somebody may change his mind.
    await node.service.retry(id, LOCAL_REQUEST)
    expect((await node.eventsOf(id, hasStatus('SUCCEEDED'))).at(-1)?.deployment.attempt).toBe(2)
    await expect(node.service.cancel(id, LOCAL_REQUEST)).rejects.toMatchObject({
      extensions: { code: 'CONFLICT' },
    })
  })

  test('takes the id in capital letters as well, and is as quick', async () => {
    const node = await start({ leaseMs: 600_000 })
    const hanging = github.hang('ensureRepository')
    const id = await node.deploy()
    await hanging.reached
    expect(await node.service.cancel(id.toUpperCase(), LOCAL_REQUEST)).toMatchObject({
      id,
      status: 'CANCELLED',
    })
  })

  test('one that has just begun to wait ends it all the same', async () => {
    const node = await start()
    const hanging = github.hang('ensureOrganization')
    const id = await node.deploy()
    await hanging.reached
    const { requestCancel } = node.store
    Reflect.set(node.store, 'requestCancel', async (it: string, audit: AuditEntry) => {
      Reflect.set(node.store, 'requestCancel', requestCancel)
      await test_.database.query(
        `update deployments set status = 'WAITING', epoch = epoch + 1, run_at = now() + interval '1 hour' where id = $1`,
        [it],
      )
      return requestCancel.call(node.store, it, audit)
    })
    expect(await node.service.cancel(id, LOCAL_REQUEST)).toMatchObject({ status: 'CANCELLED' })
  })

  test('reaches the runner of another node at once', async () => {
    const [here, there] = [new PostgresPubSub(test_.database), new PostgresPubSub(test_.database)]
    await Promise.all([here.start(), there.start()])
    const node = await start({ leaseMs: 600_000, pubSub: here })
    const other = await start({ leaseMs: 600_000, pubSub: there })
    const hanging = github.hang('ensureRepository')
    const id = await node.deploy()
    await hanging.reached
    expect(await other.service.cancel(id, LOCAL_REQUEST)).toMatchObject({ status: 'CANCELLED' })
    await Promise.all([here.close(), there.close()])
  })

  test('reaches the runner of another node by its heartbeat, should the hint be lost', async () => {
    const node = await start({ leaseMs: 1_500 })
    const other = await start({ leaseMs: 1_500 })
    const hanging = github.hang('ensureRepository')
    const id = await node.deploy()
    await hanging.reached
    expect(await other.service.cancel(id, LOCAL_REQUEST)).toMatchObject({ status: 'CANCELLED' })
  })

  test('one that waits ends it, and it is not run when its time comes', async () => {
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

test('a run that could not be stored is taken up again, also while its node is busy with others', async () => {
  const node = await start({ leaseMs: 900 })
  const busy = github.hang('ensureOrganization')
  await node.deploy()
  await busy.reached
  const broken = github.hang('ensureRepository')
  const id = await node.deploy()
  await broken.reached
  // The write of its step waits for the log, and its connection is cut there.
  await test_.database.transaction(async (tx) => {
    await tx.query('select from log for update')
    broken.goOn()
    const cut = () =>
      tx.query(
        `select pg_terminate_backend(pid) from pg_stat_activity
         where datname = current_database() and wait_event_type = 'Lock' and pid <> pg_backend_pid()`,
      )
    await waitUntil(async () => (await cut()).length > 0, 'the write waits')
  })
  expect((await node.eventsOf(id)).at(-1)?.deployment.status).toBe('SUCCEEDED')
  busy.goOn()
})

describe('places', () => {
  test('at most so many run at once; the rest are QUEUED, first come, first served', async () => {
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
    hanging.goOn()
    for (const id of [first, ...rest]) await node.eventsOf(id)
    const started = github.calls.filter((call) => call.startsWith('ensureOrganization'))
    expect(started).toEqual([0, 1, 2, 3, 4, 5].map((i) => `ensureOrganization org-${i}`))
    expect(told(await node.eventsOf(rest[0]!)).slice(0, 3)).toEqual([
      [1, 'DEPLOY', 'QUEUED', 'Waiting for a free runner'],
      [2, 'DEPLOY', 'RUNNING', 'Creating org'],
      [3, 'CREATE_ORG', 'RUNNING', 'Creating repo'],
    ])
  })

  test('organizations take turns: thirty of one do not hold up the one of another', async () => {
    const node = await start({ concurrency: 1 })
    const hanging = github.hang('ensureOrganization')
    const first = await node.deploy({ org: 'many' })
    await hanging.reached
    // All at once, as a lecturer does.
    const many = await Promise.all(Array.from({ length: 30 }, () => node.deploy({ org: 'many' })))
    const few = [await node.deploy({ org: 'few' }), await node.deploy({ org: 'Few' })]
    const one = await node.deploy({ org: 'one' })
    hanging.goOn()
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

  test('a retry waits for its turn as a new one does', async () => {
    const node = await start({ concurrency: 1 })
    github.next('ensureOrganization', new ForgeError('REPO_TAKEN', 'No.'))
    const failed = await node.deploy({ org: 'many' })
    await node.eventsOf(failed)
    const hanging = github.hang('ensureOrganization')
    const running = await node.deploy({ org: 'many' })
    await hanging.reached
    const rest = [await node.deploy({ org: 'many' }), await node.deploy({ org: 'other' })]
    await node.service.retry(failed, LOCAL_REQUEST)
    hanging.goOn()
    for (const id of [running, ...rest]) await node.eventsOf(id)
    const last = (await node.eventsOf(failed, hasStatus('SUCCEEDED'))).at(-1)
    expect(last?.deployment.attempt).toBe(2)
    const started = await test_.database.query<{ id: string }>(
      `select deployment_id as id from events
       where deployment ->> 'status' = 'RUNNING' and deployment ->> 'step' = 'DEPLOY' order by position`,
    )
    expect(started.map(({ id }) => id)).toEqual([failed, running, rest[1], rest[0], failed])
  })

  test('finding whose turn it is takes one step in an index, however many wait', async () => {
    await test_.database.query(
      `insert into deployments (id, org, repo, visibility, branch, step, status, text, sequence, attempt, file_count,
         size_bytes, created_at, updated_at, input_digest, planned_commit, planned_tree, object_count, pack_bytes,
         run_at, queue_rank)
       select gen_random_uuid(), 'org-' || n % 7, 'repo-' || n, 'PUBLIC', 'main', 'DEPLOY', 'QUEUED', '', 1, 1, 0, 0,
         now(), now(), '', '', '', 0, 0, now(), n / 7 from generate_series(1, 20000) n`,
    )
    await test_.database.query('analyze deployments')
    const plan = async (query: string) => {
      const rows = await test_.database.query<{ 'QUERY PLAN': string }>(`explain ${query}`)
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

  test('a planned stop hands its deployments back, and another node goes on at once', async () => {
    const node = await start({ leaseMs: 600_000 })
    const hanging = github.hang('ensureRepository')
    const id = await node.deploy()
    await hanging.reached
    const other = await start({ leaseMs: 600_000 })
    const again = github.hang('ensureRepository')
    await node.stop()
    other.runner.pollNow()
    await again.reached
    // Nobody died.
    const [row] = await test_.database.query('select reclaim_count from deployments where id = $1', [id])
    expect(row).toEqual({ reclaim_count: 0 })
    again.goOn()
    const events = await other.eventsOf(id)
    expect(told(events).map(([sequence]) => sequence)).toEqual([1, 2, 3, 4, 5])
    expect(events.at(-1)?.deployment.status).toBe('SUCCEEDED')
  })
})

describe('a runner that is silent', () => {
  /** As when its process is stopped: no heartbeat gets out, while a call to the forge is still under way. */
  const silence = (node: TestNode) =>
    Reflect.set(node.leases, 'renewLeases', () => new Promise(() => undefined))

  test('is taken over, and what it does afterwards is not stored', async () => {
    const zombie = await start({ leaseMs: 600 })
    silence(zombie)
    const hanging = github.hang('ensureRepository', { deaf: true })
    const id = await zombie.deploy()
    await hanging.reached
    const other = await start({ leaseMs: 600 })
    const events = await other.eventsOf(id)
    hanging.goOn()
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

  test('stops its own call before another can begin', async () => {
    const zombie = await start({ leaseMs: 1_500 })
    silence(zombie)
    const hanging = github.hang('ensureRepository')
    const id = await zombie.deploy()
    await hanging.reached
    let runsAtZombie = -1
    github.next('ensureRepository', () => {
      runsAtZombie = Reflect.get(zombie.runner, 'runs').size
    })
    const other = await start({ leaseMs: 1_500 })
    Reflect.set(zombie.runner, 'isStopping', true)
    const takeOver = setInterval(() => other.runner.pollNow(), 5)
    expect((await other.eventsOf(id)).at(-1)?.deployment.status).toBe('SUCCEEDED')
    clearInterval(takeOver)
    expect(runsAtZombie).toBe(0)
  })

  test('may take over from itself, and is in command of what it then runs', async () => {
    const node = await start({ leaseMs: 600 })
    const { renewLeases: heartbeat } = node.leases
    let isSilent = true
    Reflect.set(node.leases, 'renewLeases', (...args: Parameters<typeof heartbeat>) =>
      isSilent ? Promise.reject(new Error('Silent.')) : heartbeat.apply(node.leases, args),
    )
    const before = github.hang('ensureRepository', { deaf: true })
    const id = await node.deploy()
    await before.reached
    const old = Reflect.get(node.runner, 'runs').get(id)
    const again = github.hang('ensureRepository')
    await again.reached
    isSilent = false
    before.goOn()
    await old.ended
    // The end of the old run is not that of the new one, which counts, beats and can be stopped.
    expect(Reflect.get(node.runner, 'runs').size).toBe(1)
    expect(await node.service.cancel(id, LOCAL_REQUEST)).toMatchObject({ status: 'CANCELLED' })
  })

  test('is shown as waiting when nobody has room to take over', async () => {
    const zombie = await start({ leaseMs: 600 })
    silence(zombie)
    // Longer: on a busy machine its own must not run out.
    const busy = await start({ leaseMs: 3_000, concurrency: 1 })
    const atZombie = github.hang('ensureRepository', { deaf: true })
    const id = await zombie.deploy()
    await atZombie.reached
    const atBusy = github.hang('ensureOrganization')
    const blocker = await busy.deploy()
    await atBusy.reached
    Reflect.set(zombie.runner, 'isStopping', true)
    const events = await busy.eventsOf(id, hasStatus('QUEUED'))
    expect(events.at(-1)?.deployment.text).toBe('Waiting for a free runner')
    atBusy.goOn()
    await busy.eventsOf(blocker)
    expect((await busy.eventsOf(id)).at(-1)?.deployment.status).toBe('SUCCEEDED')
    atZombie.goOn()
  })

  test('too often at one step ends in a failure that says so', async () => {
    const node = await start()
    const hanging = github.hang('ensureOrganization')
    const id = await node.deploy()
    await hanging.reached
    await test_.database.query(
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
