import { afterAll, afterEach, beforeAll, expect, test } from '@jest/globals'
import { MockGitHub } from '../../../test/support/deployments/mock-github.ts'
import { LOCAL_REQUEST, TestNode } from '../../../test/support/deployments/test-node.ts'
import { createMigratedDatabase, type TestDatabase } from '../../../test/support/test-database.ts'
import { Config } from '../../config/config.ts'
import { ForgeError } from '../../github/forge-error.ts'
import { ContentsCleanup } from './contents-cleanup.ts'

let testDatabase: TestDatabase
let github: MockGitHub
let node: TestNode

beforeAll(async () => {
  testDatabase = await createMigratedDatabase()
  github = new MockGitHub()
  node = await TestNode.start({ database: testDatabase.database, github })
})

afterEach(() => testDatabase.database.query('truncate deployment_contents, events, deployments'))

afterAll(async () => {
  await node.stop()
  await testDatabase.drop()
})

const cleanUp = () =>
  new ContentsCleanup(new Config({ RETENTION_DAYS: '7' }), testDatabase.database).removeExpired()

/** A failed deployment, which could be retried. */
async function failed(): Promise<string> {
  github.next('ensureOrganization', new ForgeError('REPO_TAKEN', 'No.'))
  const id = await node.deploy()
  await node.eventsOf(id)
  return id
}

async function setEndedDaysAgo(days: number, ids: readonly string[]): Promise<void> {
  await testDatabase.database.query(
    `update deployments set finished_at = now() - $1 * interval '1 day' where id = any($2)`,
    [days, ids],
  )
}

async function idsWithContents(): Promise<string[]> {
  const rows = await testDatabase.database.query<{ id: string }>(
    'select distinct deployment_id as id from deployment_contents',
  )
  return rows.map(({ id }) => id)
}

test('removes expired contents but keeps the events, and a later retry explains why it is impossible', async () => {
  const [old, recent] = [await failed(), await failed()]
  await setEndedDaysAgo(8, [old])
  await setEndedDaysAgo(6, [recent])
  const events = await node.eventsOf(old)
  expect(await cleanUp()).toBe(1)
  expect(await cleanUp()).toBe(0)
  expect(await idsWithContents()).toEqual([recent])
  expect(await node.eventsOf(old)).toEqual(events)

  await expect(node.service.retry(old, LOCAL_REQUEST)).rejects.toMatchObject({
    message: expect.stringMatching(
      /contents of this deployment were removed on \d{4}-.*Deploy the repository again/,
    ),
    extensions: { code: 'CONFLICT', deploymentId: old },
  })
  await node.service.retry(recent, LOCAL_REQUEST)
  expect((await node.eventsOf(recent, (event) => event.deployment.attempt === 2)).length).toBeGreaterThan(2)
  await node.eventsOf(recent, (event) => event.deployment.status === 'SUCCEEDED')
})

test('keeps the contents of active deployments, however old', async () => {
  const hanging = github.hang('ensureOrganization')
  const id = await node.deploy()
  await hanging.reached
  await testDatabase.database.query(`update deployments set created_at = now() - interval '99 days'`)
  expect(await cleanUp()).toBe(0)
  hanging.resume()
  await node.eventsOf(id)
  expect(await idsWithContents()).toEqual([id])
})

test('several nodes clean up at once, in batches, and only one of them processes each deployment', async () => {
  const ids = await Promise.all(Array.from({ length: 50 }, () => failed()))
  await setEndedDaysAgo(8, ids)
  const removed = await Promise.all([cleanUp(), cleanUp(), cleanUp()])
  expect(removed.reduce((sum, count) => sum + count)).toBe(50)
  expect(await idsWithContents()).toEqual([])
})
