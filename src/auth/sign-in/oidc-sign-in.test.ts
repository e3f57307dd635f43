import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals'
import * as oidc from 'openid-client'
import { type Forgery, ForgingProvider } from '../../../test/support/auth/forging-provider.ts'
import { OidcSignIn } from './oidc-sign-in.ts'
import { type Person, SignInError } from './sign-in-provider.ts'

const REDIRECT_URL = 'http://127.0.0.1:3000/auth/oidc/callback'
const CLAIMS = { preferred_username: 'alice', groups: ['platform-team', 7] }

let provider: ForgingProvider
let signIn: OidcSignIn

beforeAll(async () => {
  provider = await ForgingProvider.start()
})

beforeEach(() => {
  signIn = new OidcSignIn({
    name: 'Test ID',
    issuer: provider.issuer,
    clientId: 'shipcast',
    clientSecret: provider.clientSecret,
    scopes: 'openid profile email',
    rolesClaim: 'groups',
  })
})

afterAll(() => provider.close())

function newChecks() {
  return {
    state: oidc.randomState(),
    nonce: oidc.randomNonce(),
    codeVerifier: oidc.randomPKCECodeVerifier(),
  }
}

async function signInWith(forgery: Forgery): Promise<Person> {
  provider.forgery = forgery
  const checks = newChecks()
  const callbackUrl = provider.authorize(await signIn.authorizationUrl(checks, REDIRECT_URL))
  return signIn.completeSignIn(checks, callbackUrl)
}

test('reads the name and the groups from the ID token, or else from the userinfo endpoint', async () => {
  const alice = { id: `${provider.issuer}#1`, name: 'alice', groups: ['platform-team'] }
  expect(await signInWith({ claims: CLAIMS })).toEqual(alice)
  expect(await signInWith({ userInfo: { sub: '1', ...CLAIMS } })).toEqual(alice)
  const { preferred_username, groups } = CLAIMS
  expect(await signInWith({ claims: { groups }, userInfo: { sub: '1', preferred_username } })).toEqual(alice)
  expect(await signInWith({ userInfo: { sub: '1', groups: 'platform-team' } })).toEqual({
    ...alice,
    name: '1',
  })
})

describe('displays unambiguous names', () => {
  test.each<[unknown, string]>([
    ['a\0b', 'ab'],
    ['\u001b[31mroot\u001b[0m\r\nFAKE', '[31mroot[0mFAKE'],
    ['\u202eecila', 'ecila'],
    ['al\u200bice\ufeff', 'alice'],
    ['c\u034fi\u3164\u115f\ufe0f', 'ci'],
    ['\u3164', 'someone@example.com'],
    ['Ada\u2800Lovelace', 'Ada Lovelace'],
    ['e\u0301', '\u00e9'],
    ['  Ada\u3000\u00a0Lovelace ', 'Ada Lovelace'],
    ['Ada\u2028Lovelace', 'Ada Lovelace'],
    ['\ud83d', 'someone@example.com'],
    ['\u0000\u200d', 'someone@example.com'],
    [' ', 'someone@example.com'],
    ['', 'someone@example.com'],
    [7, 'someone@example.com'],
    [`${'x'.repeat(99)}😀😀`, `${'x'.repeat(99)}😀`],
    ['日本 花子', '日本 花子'],
  ])('%j as %j', async (preferred_username, name) => {
    const claims = { preferred_username, email: 'someone@example.com', groups: [] }
    expect(await signInWith({ claims })).toMatchObject({ name })
  })

  test('falls back to the identifier if no claim can be displayed', async () => {
    expect(
      await signInWith({ claims: { preferred_username: '\0', groups: [] }, userInfo: { sub: '1' } }),
    ).toMatchObject({
      name: '1',
    })
  })

  test.each(['a\0', 'a\u202e', 'x'.repeat(256)])('refuses the identifier %j', async (sub) => {
    await expect(signInWith({ claims: { ...CLAIMS, sub } })).rejects.toThrow(
      'Test ID sent an identifier (sub) with',
    )
  })
})
test.each([45, 240, -45, -240])(
  'accepts an ID token from a provider whose clock is %i s ahead',
  async (seconds) => {
    const now = Math.floor(Date.now() / 1000) + seconds
    // Our clock may be ahead: then a short-lived token has already expired by it.
    const times = { iat: now, nbf: now, exp: now + 5 }
    expect(await signInWith({ claims: { ...CLAIMS, ...times } })).toMatchObject({ name: 'alice' })
  },
)

const FORGERIES: Record<string, Forgery> = {
  'no signature (alg: none)': { alg: 'none' },
  'a signature by a secret instead of a key': { alg: 'HS256' },
  'a signature by another key': { isSignedByOtherKey: true },
  'another nonce': { claims: { nonce: 'another' } },
  'no nonce': { claims: { nonce: undefined } },
  'another audience': { claims: { aud: 'another' } },
  'our audience among others, for another party': {
    claims: { aud: ['shipcast', 'another'], azp: 'another' },
  },
  'another issuer': { claims: { iss: 'https://id.example.com' } },
  'an expiry in the past': { claims: { exp: Math.floor(Date.now() / 1000) - 3600 } },
  'a start of validity in the future': { claims: { nbf: Math.floor(Date.now() / 1000) + 3600 } },
  'no subject': { claims: { sub: undefined } },
  'another person in the userinfo response': { userInfo: { sub: '2', ...CLAIMS } },
}

test.each(Object.entries(FORGERIES))('refuses an ID token with %s', async (_name, forgery) => {
  const hasUserInfo = forgery.userInfo !== undefined
  const validClaims = hasUserInfo ? {} : CLAIMS
  const refusal = await signInWith({ ...forgery, claims: { ...validClaims, ...forgery.claims } }).catch(
    (error) => error,
  )
  expect(refusal).toBeInstanceOf(SignInError)
  expect(refusal.message).toBe('Test ID sent an invalid response. Sign in again.')
})

test('reports that the provider does not identify the person', async () => {
  await expect(signInWith({})).rejects.toThrow('Test ID sent an invalid response. Sign in again.')
})

test('refuses a response to another request', async () => {
  provider.forgery = { claims: CLAIMS }
  const checks = newChecks()
  const callbackUrl = provider.authorize(await signIn.authorizationUrl(checks, REDIRECT_URL))
  await expect(signIn.completeSignIn({ ...checks, state: 'another' }, callbackUrl)).rejects.toThrow(
    SignInError,
  )
  await expect(
    signIn.completeSignIn({ ...checks, codeVerifier: 'x'.repeat(43) }, callbackUrl),
  ).rejects.toThrow(SignInError)
  const denied = new URL(`${REDIRECT_URL}?error=access_denied&state=${checks.state}`)
  await expect(signIn.completeSignIn(checks, denied)).rejects.toThrow(
    'Test ID refused the sign-in (access_denied).',
  )
  denied.searchParams.set('error', '\u001b[31m\u202e')
  await expect(signIn.completeSignIn(checks, denied)).rejects.toThrow('("\\u001b[31m\\u202e")')
})
