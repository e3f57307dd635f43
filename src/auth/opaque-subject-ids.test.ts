import { afterAll, beforeAll, expect, test } from '@jest/globals'
import { createMigratedDatabase, type TestDatabase } from '../../test/support/test-database.ts'
import { OpaqueSubjectIds } from './opaque-subject-ids.ts'

let databases: TestDatabase[]

beforeAll(async () => {
  databases = [await createMigratedDatabase(), await createMigratedDatabase()]
})

afterAll(async () => {
  await Promise.all(databases.map((database) => database.drop()))
})

async function nodeOf(installation: number): Promise<OpaqueSubjectIds> {
  const ids = new OpaqueSubjectIds(databases[installation]!.database)
  await ids.onModuleInit()
  return ids
}

test('an opaque id is the same on every node of an installation, and discloses nothing', async () => {
  const [one, other] = [await nodeOf(0), await nodeOf(0)]
  const id = one.of('user:https://id.example.com#alice@example.com')
  expect(other.of('user:https://id.example.com#alice@example.com')).toBe(id)
  expect(id).toMatch(/^[\w-]{22}$/)
  expect(one.of('user:https://id.example.com#alice@example.org')).not.toBe(id)
  expect(one.of('service:alice')).not.toBe(one.of('user:alice'))
})

test('another installation has other ids, so that a known account does not reveal its id', async () => {
  expect((await nodeOf(0)).of('service:ci')).not.toBe((await nodeOf(1)).of('service:ci'))
})
