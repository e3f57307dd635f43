import { afterAll, beforeAll, expect, test } from '@jest/globals'
import { v7 as uuidv7 } from 'uuid'
import { createMigratedDatabase, type TestDatabase } from '../../../test/support/test-database.ts'
import type { Queryable } from '../../database/database.ts'
import { DatabaseUnavailableError } from '../../database/errors.ts'
import type { Lease } from './leased-deployment.ts'
import { type Transition, TransitionBatcher } from './transition-batcher.ts'

let test_: TestDatabase

beforeAll(async () => {
  test_ = await createMigratedDatabase()
})

afterAll(() => test_.drop())

/** Passes statements on, and counts them. */
class Counting implements Queryable {
  count = 0

  query<Row>(text: string, values?: readonly unknown[]): Promise<Row[]> {
    this.count++
    return test_.database.query<Row>(text, values)
  }
}

async function held(count: number): Promise<Lease[]> {
  const leases = Array.from({ length: count }, () => ({ id: uuidv7(), epoch: 3, owner: 'me' }))
  for (const { id, epoch, owner } of leases) {
    await test_.database.query(
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

const told = (lease: Lease, text = 'Told'): Transition => ({ lease, changes: { text } })

test('moves that come together are made together: each is told its own event, in the order of positions', async () => {
  const through = new Counting()
  const queue = new TransitionBatcher(through)
  const leases = await held(45)
  const order: number[] = []
  const rows = await Promise.all(
    leases.map(async (lease) => {
      const row = await queue.apply(told(lease, `Of ${lease.id}`))
      order.push(row?.position ?? 0)
      return row
    }),
  )
  // One went alone; the rest while it, and those after it, were under way.
  expect(through.count).toBe(1 + 3)
  expect(rows.map((row) => row?.deployment.text)).toEqual(leases.map(({ id }) => `Of ${id}`))
  expect(order).toEqual(order.map((_, i) => (order[0] ?? 0) + i))
})

test.each<[string, (lease: Lease) => Transition]>([
  ['an older epoch', (lease) => told({ ...lease, epoch: 2 })],
  ['another owner', (lease) => told({ ...lease, owner: 'you' })],
  ['another step than is reached', (lease) => ({ ...told(lease), fromStep: 'CREATE_REPO' })],
])('%s moves nothing, and keeps no other from it', async (_, wrong) => {
  const queue = new TransitionBatcher(test_.database)
  const [first, second] = (await held(2)) as [Lease, Lease]
  const [a, b, c] = await Promise.all([
    queue.apply(told(first)),
    queue.apply(wrong(second)),
    queue.apply(told(second)),
  ])
  expect(a?.sequence).toBe(2)
  expect(b).toBeUndefined()
  expect(c?.sequence).toBe(2)
})

test('two moves of one deployment are made one after the other', async () => {
  const queue = new TransitionBatcher(test_.database)
  const [other, lease] = (await held(2)) as [Lease, Lease]
  const rows = await Promise.all(
    [told(other), told(lease, 'a'), told(lease, 'b')].map((move) => queue.apply(move)),
  )
  expect(rows.map((row) => [row?.sequence, row?.deployment.text])).toEqual([
    [2, 'Told'],
    [2, 'a'],
    [3, 'b'],
  ])
})

test('one that the database refuses fails alone; while it is away, all do', async () => {
  const leases = await held(4)
  const queue = new TransitionBatcher(test_.database)
  const moves = leases.map((lease, i) => ({ lease, changes: { status: i === 2 ? 'NONSENSE' : 'RUNNING' } }))
  const results = await Promise.allSettled(moves.map((move) => queue.apply(move)))
  expect(results.map(({ status }) => status)).toEqual(['fulfilled', 'fulfilled', 'rejected', 'fulfilled'])

  const away = new TransitionBatcher({
    query: () => Promise.reject(new DatabaseUnavailableError('test', 'gone')),
  })
  const lost = await Promise.allSettled(leases.map((lease) => away.apply(told(lease))))
  expect(lost.map(({ status }) => status)).toEqual(Array(4).fill('rejected'))
  expect(await queue.apply(told(leases[0]!))).toMatchObject({ sequence: 3 })
})

test('what ends a run gives its lease up; what waits says until when', async () => {
  const queue = new TransitionBatcher(test_.database)
  const [ends, waits, cancelled] = (await held(3)) as [Lease, Lease, Lease]
  await test_.database.query('update deployments set cancel_requested = true where id = $1', [cancelled.id])
  const waiting = { changes: { status: 'WAITING' }, delayMs: 60_000, unlessCancelled: true }
  const rows = await Promise.all([
    queue.apply({ lease: ends, changes: { status: 'FAILED', error: { code: 'X' } }, hasEnded: true }),
    queue.apply({ lease: waits, ...waiting }),
    queue.apply({ lease: cancelled, ...waiting }),
  ])
  expect(rows[0]?.deployment).toMatchObject({ error: { code: 'X' }, finishedAt: expect.any(String) })
  expect(rows[1]?.deployment).toMatchObject({ waitingUntil: expect.any(String), finishedAt: null })
  expect(rows[2]).toBeUndefined()
  const owners = await test_.database.query(
    'select leased_by as owner, lease_expires_at is null as "isFree" from deployments where id = any($1) order by id',
    [[ends.id, waits.id, cancelled.id]],
  )
  expect(owners).toEqual([
    { owner: null, isFree: true },
    { owner: null, isFree: true },
    { owner: 'me', isFree: false },
  ])
})
