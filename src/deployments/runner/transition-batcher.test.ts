import { afterAll, beforeAll, expect, test } from '@jest/globals'
import { v7 as uuidv7 } from 'uuid'
import { createMigratedDatabase, type TestDatabase } from '../../../test/support/test-database.ts'
import { DatabaseUnavailableError } from '../../database/errors.ts'
import type { Queryable } from '../../database/statement.ts'
import type { Lease } from './leased-deployment.ts'
import { type Transition, TransitionBatcher } from './transition-batcher.ts'

let testDatabase: TestDatabase

beforeAll(async () => {
  testDatabase = await createMigratedDatabase()
})

afterAll(() => testDatabase.drop())

/** Counts statements. */
class CountingDatabase implements Queryable {
  count = 0

  query<Row>(text: string, values?: readonly unknown[]): Promise<Row[]> {
    this.count++
    return testDatabase.database.query<Row>(text, values)
  }
}

async function insertLeased(count: number): Promise<Lease[]> {
  const leases = Array.from({ length: count }, () => ({ id: uuidv7(), epoch: 3, owner: 'me' }))
  for (const { id, epoch, owner } of leases) {
    await testDatabase.database.query(
      `insert into deployments (id, org, repo, visibility, branch, step, status, text, sequence, attempt, file_count,
         size_bytes, created_at, updated_at, input_digest, planned_commit, planned_tree, object_count, pack_bytes,
         run_at, leased_by, lease_expires_at, epoch)
       values ($1::uuid, 'org', $1::uuid::text, 'PUBLIC', 'main', 'DEPLOY', 'RUNNING', '', 1, 1, 0,
         0, now(), now(), '', '', '', 0, 0, now(), $2, now() + interval '1 hour', $3)`,
      [id, owner, epoch],
    )
  }
  return leases
}

const withText = (lease: Lease, text = 'Text'): Transition => ({ lease, changes: { text } })

test('transitions that arrive together are applied together, and resolve to their events in log order', async () => {
  const database = new CountingDatabase()
  const batcher = new TransitionBatcher(database)
  const leases = await insertLeased(45)
  const order: number[] = []
  const rows = await Promise.all(
    leases.map(async (lease) => {
      const row = await batcher.apply(withText(lease, `Of ${lease.id}`))
      order.push(row?.position ?? 0)
      return row
    }),
  )
  // The first is applied alone; the others arrive meanwhile.
  expect(database.count).toBe(1 + 3)
  expect(rows.map((row) => row?.deployment.text)).toEqual(leases.map(({ id }) => `Of ${id}`))
  expect(order).toEqual(order.map((_, i) => (order[0] ?? 0) + i))
})

test.each<[string, (lease: Lease) => Transition]>([
  ['an older epoch', (lease) => withText({ ...lease, epoch: 2 })],
  ['another owner', (lease) => withText({ ...lease, owner: 'you' })],
  ['a step other than the one reached', (lease) => ({ ...withText(lease), fromStep: 'CREATE_REPO' })],
])('%s changes nothing and does not prevent other transitions', async (_, wrong) => {
  const batcher = new TransitionBatcher(testDatabase.database)
  const [first, second] = (await insertLeased(2)) as [Lease, Lease]
  const [a, b, c] = await Promise.all([
    batcher.apply(withText(first)),
    batcher.apply(wrong(second)),
    batcher.apply(withText(second)),
  ])
  expect(a?.sequence).toBe(2)
  expect(b).toBeUndefined()
  expect(c?.sequence).toBe(2)
})

test('two transitions of one deployment are applied one after the other', async () => {
  const batcher = new TransitionBatcher(testDatabase.database)
  const [other, lease] = (await insertLeased(2)) as [Lease, Lease]
  const rows = await Promise.all(
    [withText(other), withText(lease, 'a'), withText(lease, 'b')].map((transition) =>
      batcher.apply(transition),
    ),
  )
  expect(rows.map((row) => [row?.sequence, row?.deployment.text])).toEqual([
    [2, 'Text'],
    [2, 'a'],
    [3, 'b'],
  ])
})

test('a transition that the database rejects fails alone; if the database is unavailable, all fail', async () => {
  const leases = await insertLeased(4)
  const batcher = new TransitionBatcher(testDatabase.database)
  const transitions = leases.map((lease, i) => ({
    lease,
    changes: { status: i === 2 ? 'NONSENSE' : 'RUNNING' },
  }))
  const results = await Promise.allSettled(transitions.map((transition) => batcher.apply(transition)))
  expect(results.map(({ status }) => status)).toEqual(['fulfilled', 'fulfilled', 'rejected', 'fulfilled'])

  const away = new TransitionBatcher({
    query: () => Promise.reject(new DatabaseUnavailableError('test', 'gone')),
  })
  const lost = await Promise.allSettled(leases.map((lease) => away.apply(withText(lease))))
  expect(lost.map(({ status }) => status)).toEqual(Array(4).fill('rejected'))
  expect(await batcher.apply(withText(leases[0]!))).toMatchObject({ sequence: 3 })
})

test('a transition that ends a run releases the lease; one that waits stores until when', async () => {
  const batcher = new TransitionBatcher(testDatabase.database)
  const [ending, waiting, cancelled] = (await insertLeased(3)) as [Lease, Lease, Lease]
  await testDatabase.database.query('update deployments set cancel_requested = true where id = $1', [
    cancelled.id,
  ])
  const wait = { changes: { status: 'WAITING' }, delayMs: 60_000, unlessCancelled: true }
  const rows = await Promise.all([
    batcher.apply({ lease: ending, changes: { status: 'FAILED', error: { code: 'X' } }, hasEnded: true }),
    batcher.apply({ lease: waiting, ...wait }),
    batcher.apply({ lease: cancelled, ...wait }),
  ])
  expect(rows[0]?.deployment).toMatchObject({ error: { code: 'X' }, finishedAt: expect.any(String) })
  expect(rows[1]?.deployment).toMatchObject({ waitingUntil: expect.any(String), finishedAt: null })
  expect(rows[2]).toBeUndefined()
  const owners = await testDatabase.database.query(
    'select leased_by as owner, lease_expires_at is null as "isFree" from deployments where id = any($1) order by id',
    [[ending.id, waiting.id, cancelled.id]],
  )
  expect(owners).toEqual([
    { owner: null, isFree: true },
    { owner: null, isFree: true },
    { owner: 'me', isFree: false },
  ])
})
