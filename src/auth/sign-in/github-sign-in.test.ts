import { afterAll, beforeAll, beforeEach, expect, test } from '@jest/globals'
import * as oauth from 'openid-client'
import { FakeGitHubOAuth } from '../../../test/support/auth/fake-github-oauth.ts'
import { GitHubSignIn } from './github-sign-in.ts'
import type { SignInChecks } from './sign-in-provider.ts'

const REDIRECT_URL = 'http://127.0.0.1:3000/auth/github/callback'
const ALICE = { id: 583231, login: 'Alice-Admin', organizations: ['Acme'], teams: ['Acme/platform'] }
const INVALID_RESPONSE = 'GitHub sent an invalid response. Sign in again.'

let github: FakeGitHubOAuth
let signIn: GitHubSignIn
let checks: SignInChecks

beforeAll(async () => {
  github = await FakeGitHubOAuth.start(REDIRECT_URL)
})

beforeEach(() => {
  github.person = ALICE
  github.apiStatus = undefined
  github.apiRequests.length = 0
  const { clientId, clientSecret, url } = github
  signIn = new GitHubSignIn({ clientId, clientSecret, url, apiUrl: `${url}/api/v3` })
  checks = {
    state: oauth.randomState(),
    nonce: oauth.randomNonce(),
    codeVerifier: oauth.randomPKCECodeVerifier(),
  }
})

afterAll(() => github.close())

/** Follows the redirects of a sign-in like a browser. */
async function callbackUrlOfSignIn(): Promise<URL> {
  const response = await fetch(await signIn.authorizationUrl(checks, REDIRECT_URL), { redirect: 'manual' })
  expect(response.status).toBe(302)
  return new URL(response.headers.get('location') ?? '')
}

test('identifies a person by their numeric id, with their organizations and teams', async () => {
  expect(await signIn.completeSignIn(checks, await callbackUrlOfSignIn())).toEqual({
    id: `${github.url}#583231`,
    name: 'Alice-Admin',
    groups: ['Acme', 'Acme/platform'],
  })
})

test('identifies a person without teams, and one without organizations', async () => {
  github.person = { ...ALICE, teams: [] }
  expect((await signIn.completeSignIn(checks, await callbackUrlOfSignIn())).groups).toEqual(['Acme'])
  github.person = { ...ALICE, organizations: [], teams: [] }
  expect((await signIn.completeSignIn(checks, await callbackUrlOfSignIn())).groups).toEqual([])
})

test('removes invisible characters from a login', async () => {
  github.person = { ...ALICE, login: 'al\u0000ice\u202e' }
  expect((await signIn.completeSignIn(checks, await callbackUrlOfSignIn())).name).toBe('alice')
  github.person = { ...ALICE, login: '\u200b' }
  expect((await signIn.completeSignIn(checks, await callbackUrlOfSignIn())).name).toBe('583231')
})

test('reads all pages', async () => {
  const organizations = Array.from({ length: 100 }, (_, i) => `org-${i}`)
  const teams = Array.from({ length: 201 }, (_, i) => `org-0/team-${i}`)
  github.person = { ...ALICE, organizations, teams }
  expect((await signIn.completeSignIn(checks, await callbackUrlOfSignIn())).groups).toEqual([
    ...organizations,
    ...teams,
  ])
  expect(github.apiRequests).toEqual([
    'GET /user',
    'GET /user/orgs?per_page=100&page=1',
    'GET /user/orgs?per_page=100&page=2',
    'GET /user/teams?per_page=100&page=1',
    'GET /user/teams?per_page=100&page=2',
    'GET /user/teams?per_page=100&page=3',
  ])
})

test('accepts a response once, for the matching request', async () => {
  const callbackUrl = await callbackUrlOfSignIn()
  await signIn.completeSignIn(checks, callbackUrl)
  await expect(signIn.completeSignIn(checks, callbackUrl)).rejects.toThrow(INVALID_RESPONSE)
  const other = await callbackUrlOfSignIn()
  await expect(signIn.completeSignIn({ ...checks, state: 'another' }, other)).rejects.toThrow(
    INVALID_RESPONSE,
  )
  await expect(signIn.completeSignIn({ ...checks, codeVerifier: 'x'.repeat(43) }, other)).rejects.toThrow(
    INVALID_RESPONSE,
  )
})

test('accepts a response that names GitHub as its issuer, and no other', async () => {
  const callbackUrl = await callbackUrlOfSignIn()
  callbackUrl.searchParams.set('iss', 'https://id.example.com')
  await expect(signIn.completeSignIn(checks, callbackUrl)).rejects.toThrow(INVALID_RESPONSE)
  callbackUrl.searchParams.set('iss', `${github.url}/login/oauth`)
  expect((await signIn.completeSignIn(checks, callbackUrl)).name).toBe('Alice-Admin')
})

test('reports that the person declined', async () => {
  github.person = null
  await expect(signIn.completeSignIn(checks, await callbackUrlOfSignIn())).rejects.toThrow(
    'GitHub refused the sign-in (access_denied). Sign in again.',
  )
})

test('reports that GitHub does not identify the person', async () => {
  github.apiStatus = 503
  await expect(signIn.completeSignIn(checks, await callbackUrlOfSignIn())).rejects.toThrow(
    'GitHub did not identify you (status 503 for /api/v3/user). Sign in again.',
  )
  const wrong = { clientId: github.clientId, clientSecret: 'another', url: github.url }
  const other = new GitHubSignIn({ ...wrong, apiUrl: `${github.url}/api/v3` })
  await expect(other.completeSignIn(checks, await callbackUrlOfSignIn())).rejects.toThrow(INVALID_RESPONSE)
})
