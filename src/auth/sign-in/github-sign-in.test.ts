import { afterAll, beforeAll, beforeEach, expect, test } from '@jest/globals'
import * as oauth from 'openid-client'
import { FakeGitHubOAuth } from '../../../test/support/auth/fake-github-oauth.ts'
import { GitHubSignIn } from './github-sign-in.ts'
import type { SignInChecks } from './sign-in-provider.ts'

const REDIRECT_URL = 'http://127.0.0.1:3000/auth/github/callback'
const ALICE = { id: 583231, login: 'Alice-Admin', organizations: ['Acme'], teams: ['Acme/platform'] }
const NOT_ACCEPTED = 'What GitHub sent could not be accepted. Begin again.'

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

/** As the browser goes there and comes back. */
async function sentBack(): Promise<URL> {
  const response = await fetch(await signIn.authorizationUrl(checks, REDIRECT_URL), { redirect: 'manual' })
  expect(response.status).toBe(302)
  return new URL(response.headers.get('location') ?? '')
}

test('knows a person by their number, their organizations and their teams', async () => {
  expect(await signIn.completeSignIn(checks, await sentBack())).toEqual({
    id: `${github.url}#583231`,
    name: 'Alice-Admin',
    groups: ['Acme', 'Acme/platform'],
  })
})

test('knows a person who is in no team, and one who is in no organization', async () => {
  github.person = { ...ALICE, teams: [] }
  expect((await signIn.completeSignIn(checks, await sentBack())).groups).toEqual(['Acme'])
  github.person = { ...ALICE, organizations: [], teams: [] }
  expect((await signIn.completeSignIn(checks, await sentBack())).groups).toEqual([])
})

test('removes invisible characters from a login', async () => {
  github.person = { ...ALICE, login: 'al\u0000ice\u202e' }
  expect((await signIn.completeSignIn(checks, await sentBack())).name).toBe('alice')
  github.person = { ...ALICE, login: '\u200b' }
  expect((await signIn.completeSignIn(checks, await sentBack())).name).toBe('583231')
})

test('reads all pages', async () => {
  const organizations = Array.from({ length: 100 }, (_, i) => `org-${i}`)
  const teams = Array.from({ length: 201 }, (_, i) => `org-0/team-${i}`)
  github.person = { ...ALICE, organizations, teams }
  expect((await signIn.completeSignIn(checks, await sentBack())).groups).toEqual([...organizations, ...teams])
  expect(github.apiRequests).toEqual([
    'GET /user',
    'GET /user/orgs?per_page=100&page=1',
    'GET /user/orgs?per_page=100&page=2',
    'GET /user/teams?per_page=100&page=1',
    'GET /user/teams?per_page=100&page=2',
    'GET /user/teams?per_page=100&page=3',
  ])
})

test('takes an answer once, for the question that was asked', async () => {
  const returned = await sentBack()
  await signIn.completeSignIn(checks, returned)
  await expect(signIn.completeSignIn(checks, returned)).rejects.toThrow(NOT_ACCEPTED)
  const other = await sentBack()
  await expect(signIn.completeSignIn({ ...checks, state: 'another' }, other)).rejects.toThrow(NOT_ACCEPTED)
  await expect(signIn.completeSignIn({ ...checks, codeVerifier: 'x'.repeat(43) }, other)).rejects.toThrow(
    NOT_ACCEPTED,
  )
})

test('takes an answer that names GitHub as its issuer, and none that names another', async () => {
  const returned = await sentBack()
  returned.searchParams.set('iss', 'https://id.example.com')
  await expect(signIn.completeSignIn(checks, returned)).rejects.toThrow(NOT_ACCEPTED)
  returned.searchParams.set('iss', `${github.url}/login/oauth`)
  expect((await signIn.completeSignIn(checks, returned)).name).toBe('Alice-Admin')
})

test('says so when the person has said no', async () => {
  github.person = null
  await expect(signIn.completeSignIn(checks, await sentBack())).rejects.toThrow(
    'GitHub did not let you in (access_denied). Begin again.',
  )
})

test('says so when GitHub does not tell who it is', async () => {
  github.apiStatus = 503
  await expect(signIn.completeSignIn(checks, await sentBack())).rejects.toThrow(
    'GitHub did not tell who you are (status 503 for /api/v3/user). Begin again.',
  )
  const wrong = { clientId: github.clientId, clientSecret: 'another', url: github.url }
  const other = new GitHubSignIn({ ...wrong, apiUrl: `${github.url}/api/v3` })
  await expect(other.completeSignIn(checks, await sentBack())).rejects.toThrow(NOT_ACCEPTED)
})
