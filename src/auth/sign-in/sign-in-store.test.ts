import { afterAll, beforeAll, expect, test } from '@jest/globals'
import { createMigratedDatabase, type TestDatabase } from '../../../test/support/test-database.ts'
import { SignInStore } from './sign-in-store.ts'

const pendingSignIn = {
  checks: { state: 'state-1', nonce: 'nonce-1', codeVerifier: 'verifier-1' },
  returnTo: '/#1',
  sessionId: null,
}

let testDatabase: TestDatabase
let store: SignInStore

beforeAll(async () => {
  testDatabase = await createMigratedDatabase()
  store = new SignInStore(testDatabase.database)
})

afterAll(() => testDatabase.drop())

test('completes a sign-in once, however many requests arrive at the same time', async () => {
  const secret = await store.create('oidc', pendingSignIn)
  const results = await Promise.all(
    Array.from({ length: 10 }, () => store.consume('oidc', 'state-1', secret)),
  )
  expect(results.filter(Boolean)).toEqual([pendingSignIn])
})

test('completes a sign-in only in the browser that started it', async () => {
  const secret = await store.create('oidc', pendingSignIn)
  expect(await store.consume('github', 'state-1', secret)).toBeUndefined()
  expect(await store.consume('oidc', 'state-2', secret)).toBeUndefined()
  expect(await store.consume('oidc', 'state-1', '')).toBeUndefined()
  expect(await store.consume('oidc', 'state-1', secret)).toEqual(pendingSignIn)
})

test('expires a sign-in after ten minutes', async () => {
  const secret = await store.create('oidc', pendingSignIn)
  await testDatabase.database.query("update sign_ins set expires_at = expires_at - interval '10 minutes'", [])
  expect(await store.consume('oidc', 'state-1', secret)).toBeUndefined()
  await store.create('oidc', { ...pendingSignIn, checks: { ...pendingSignIn.checks, state: 'state-2' } })
  const rows = await testDatabase.database.query('select state_hash from sign_ins', [])
  expect(rows).toHaveLength(1)
})

test('stores neither the state nor the browser secret', async () => {
  const secret = await store.create('oidc', {
    ...pendingSignIn,
    checks: { ...pendingSignIn.checks, state: 'state-3' },
  })
  const [row] = await testDatabase.database.query<{ text: string }>(
    "select string_agg(s::text || encode(state_hash, 'escape') || encode(browser_hash, 'escape'), ' ') as text from sign_ins s",
    [],
  )
  expect(row?.text).not.toContain(secret)
  expect(row?.text).not.toContain('state-3')
})
