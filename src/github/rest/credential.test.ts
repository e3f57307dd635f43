import { createPublicKey, generateKeyPairSync, verify } from 'node:crypto'
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals'
import { FaultGitHub } from '../../../test/support/github/fault-github.ts'
import { MemoryRateLimitStore } from '../../../test/support/github/memory-rate-limit-store.ts'
import { GitHubRestClient } from './github-rest-client.ts'

const context = { signal: new AbortController().signal }
// PKCS#1, as the keys that GitHub offers for download.
const { privateKey, publicKey } = generateKeyPairSync('rsa', {
  modulusLength: 2048,
  privateKeyEncoding: { type: 'pkcs1', format: 'pem' },
  publicKeyEncoding: { type: 'spki', format: 'pem' },
})
const INSTALLATION = /^GET \/orgs\/acme\/installation$/
const ACCESS_TOKEN = /^POST \/app\/installations\/55\/access_tokens$/

describe('a GitHub App', () => {
  let github: FaultGitHub
  let client: GitHubRestClient
  let installation: Record<string, unknown>
  let lifetimeMs: number

  beforeEach(async () => {
    github = await FaultGitHub.start()
    installation = {
      id: 55,
      html_url: 'https://github.com/organizations/acme/settings/installations/55',
      repository_selection: 'all',
      permissions: { administration: 'write', contents: 'write', metadata: 'read' },
    }
    lifetimeMs = 3_600_000
    // Verifies the App's signature as GitHub does.
    github.appHandler = (authorization, line) => {
      const [head = '', claims = '', signature = ''] = authorization.replace('Bearer ', '').split('.')
      const isSigned = verify(
        'sha256',
        Buffer.from(`${head}.${claims}`),
        createPublicKey(publicKey),
        Buffer.from(signature, 'base64url'),
      )
      const { iss, iat, exp } = isSigned ? JSON.parse(Buffer.from(claims, 'base64url').toString()) : {}
      if (String(iss) !== '4711')
        return { status: 401, body: { message: 'A JSON web token could not be decoded' } }
      const now = github.now() / 1_000
      if (iat > now) return { status: 401, body: { message: "'Issued at' claim ('iat') is in the future" } }
      if (exp > now + 600 || exp <= now)
        return { status: 401, body: { message: "'Expiration time' claim ('exp') is too far, or over" } }
      if (INSTALLATION.test(line)) return { status: 200, body: installation }
      if (ACCESS_TOKEN.test(line)) {
        return {
          status: 201,
          body: { token: github.token, expires_at: new Date(github.now() + lifetimeMs).toISOString() },
        }
      }
      return { status: 404, body: { message: 'Not Found' } }
    }
    client = createClient('4711')
  })
  afterEach(async () => {
    await client.close()
    await github.close()
    expect(github.violations).toEqual([])
  })

  const createClient = (appId: string) =>
    new GitHubRestClient({
      apiUrl: github.url,
      credential: { kind: 'app', appId, privateKey },
      rateLimitStore: new MemoryRateLimitStore(),
      writeSpacingMs: 0,
      retrySchedule: { verifyDelaysMs: [0], propagationDelaysMs: [0] },
    })

  const input = {
    owner: 'acme',
    name: 'site',
    visibility: 'PRIVATE',
    description: null,
    intentId: 'one',
    knownId: null,
    branch: 'main',
    plannedCommit: '0'.repeat(40),
  } as const

  test('uses a token of its installation, and caches it', async () => {
    await client.ensureOrganization({ login: 'acme' }, context)
    expect((await client.ensureRepository(input, context)).outcome).toBe('created')
    expect(github.countRequests(ACCESS_TOKEN)).toBe(1)
    expect(github.countRequests(/^GET \/user$/)).toBe(0)
  })

  test.each([25, 45, 60, 300, 5_400, 86_400].flatMap((seconds) => [seconds, -seconds]))(
    "works with a local clock %i s ahead of GitHub's",
    async (seconds) => {
      github.clockAheadMs = -seconds * 1_000
      await Promise.all([1, 2].map(() => client.ensureOrganization({ login: 'acme' }, context)))
      expect((await client.ensureRepository(input, context)).outcome).toBe('created')
      const before = [github.countRequests(INSTALLATION), github.countRequests(ACCESS_TOKEN)]
      // From now on, it uses GitHub's clock, by which its token lasts an hour.
      await client.ensureRepository({ ...input, name: 'other' }, context)
      await client.ensureOrganization({ login: 'acme' }, context)
      expect([github.countRequests(INSTALLATION), github.countRequests(ACCESS_TOKEN)]).toEqual([
        before[0]! + 1,
        before[1],
      ])
      // The local clock is corrected.
      github.clockAheadMs = 0
      await client.ensureOrganization({ login: 'acme' }, context)
    },
  )

  test('repeats a refused request once if its clock may be the cause, and only then', async () => {
    const unknownApp = createClient('1')
    const code = 'UNAUTHENTICATED'
    await expect(unknownApp.ensureOrganization({ login: 'acme' }, context)).rejects.toMatchObject({ code })
    expect(github.countRequests(INSTALLATION)).toBe(1)
    github.clockAheadMs = 5_400_000
    await expect(unknownApp.ensureOrganization({ login: 'acme' }, context)).rejects.toMatchObject({ code })
    expect(github.countRequests(INSTALLATION)).toBe(3)
    await unknownApp.close()
  })

  test('renews its token before the old one expires', async () => {
    lifetimeMs = 60_000
    await client.ensureOrganization({ login: 'acme' }, context)
    await client.ensureOrganization({ login: 'acme' }, context)
    expect(github.countRequests(ACCESS_TOKEN)).toBe(2)
  })

  test('fetches a new token once if the old one is refused', async () => {
    github.next(/^GET \/orgs\/acme$/, () => ({ status: 401, body: { message: 'Bad credentials' } }))
    expect(await client.ensureOrganization({ login: 'acme' }, context)).toMatchObject({ outcome: 'existed' })
    expect(github.countRequests(ACCESS_TOKEN)).toBe(2)
    github.always(/^GET \/orgs\/acme$/, () => ({ status: 401, body: { message: 'Bad credentials' } }))
    const refused = client.ensureOrganization({ login: 'acme' }, context)
    await expect(refused).rejects.toMatchObject({ code: 'UNAUTHENTICATED' })
    expect(github.countRequests(ACCESS_TOKEN)).toBe(3)
  })

  test.each([
    [
      'lacks a permission',
      { permissions: { contents: 'write' } },
      /administration: write.*installations\/55/,
    ],
    [
      'sees only selected repositories',
      { repository_selection: 'selected' },
      /“All repositories”.*installations\/55/,
    ],
  ])('that %s gets an error that says where to grant it', async (_case, changes, message) => {
    Object.assign(installation, changes)
    const call = client.ensureOrganization({ login: 'acme' }, context)
    await expect(call).rejects.toMatchObject({ code: 'FORBIDDEN', message: expect.stringMatching(message) })
  })

  test('that is not installed, or unknown, gets an error that says so', async () => {
    const notInstalled = client.ensureOrganization({ login: 'other' }, context)
    await expect(notInstalled).rejects.toMatchObject({
      code: 'FORBIDDEN',
      message: expect.stringMatching(/not installed/),
    })
    const unknownApp = createClient('1')
    const unknown = unknownApp.ensureOrganization({ login: 'acme' }, context)
    await expect(unknown).rejects.toMatchObject({
      code: 'UNAUTHENTICATED',
      message: expect.stringMatching(/GITHUB_APP_PRIVATE_KEY_FILE/),
    })
    await unknownApp.close()
  })
})
