import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import { createTestDatabase, type TestDatabase } from '../../test/support/test-database.ts'

let test1: TestDatabase
beforeAll(async () => {
  test1 = await createTestDatabase()
})
afterAll(() => test1.drop())
describe('Database', () => {
  test('rolls back', async () => {
    const { database } = test1
    await database.query('create table t (n bigint, at timestamptz, b bytea, j jsonb)')
    await expect(
      database.transaction(async (tx) => {
        await tx.query('insert into t (n) values (1)')
        throw new Error('no')
      }),
    ).rejects.toThrow('no')
    expect(await database.query('select * from t')).toEqual([])
    await database.query('insert into t values ($1, $2, $3, $4)', [
      2 ** 40,
      new Date(0),
      new Uint8Array([1, 255]),
      { a: 1 },
    ])
    expect(await database.query('select * from t')).toEqual([
      { n: 2 ** 40, at: new Date(0), b: Buffer.from([1, 255]), j: { a: 1 } },
    ])
  })
})
