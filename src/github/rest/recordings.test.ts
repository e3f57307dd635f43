import { readFileSync } from 'node:fs'
import { describe, expect, test } from '@jest/globals'
import { organizationOf, repositoryOf } from './accounts.ts'
import { endpointsOf } from './endpoints.ts'
import type { ApiResponse } from './github-api.ts'
import { toForgeError } from './github-errors.ts'
import { rateLimitOf } from './rate-limit.ts'

interface Exchange {
  method: string
  path: string
  status: number
  headers: Record<string, string>
  body: unknown
}

const { exchanges }: { exchanges: Exchange[] } = JSON.parse(
  readFileSync(new URL('../../../test/support/github/recordings.json', import.meta.url), 'utf8'),
)
const addresses = endpointsOf('https://api.github.com')

/** As `GitHubApi` hands it on. */
function answerTo(request: RegExp, status: number): ApiResponse {
  const found = exchanges.find(
    (each) => request.test(`${each.method} ${each.path}`) && each.status === status,
  )
  if (!found) throw new Error(`No recording of ${request} with ${status}.`)
  const { headers, body, path } = found
  const doing = { action: 'do it', grantHint: 'https://example.com', redact: (text: string) => text }
  const bytes = Buffer.from(JSON.stringify(body))
  return {
    status,
    headers,
    json: body,
    body: bytes,
    url: `https://api.github.com${path}`,
    description: doing,
  }
}

describe('what the real GitHub answered', () => {
  test('to a create in an organization, is a repository', () => {
    expect(repositoryOf(answerTo(/^POST \/orgs\//, 201), addresses)).toMatchObject({
      id: expect.stringMatching(/^\d+$/),
      owner: 'octokit-fixture-org',
      fullName: expect.stringMatching(/^octokit-fixture-org\//),
      visibility: expect.stringMatching(/^(PUBLIC|PRIVATE)$/),
      homepage: null,
      url: expect.stringMatching(/^https:\/\/github\.com\/octokit-fixture-org\//),
      cloneUrl: expect.stringMatching(/^https:\/\/github\.com\/octokit-fixture-org\/.*\.git$/),
    })
  })

  test('to a look at a repository, also after a rename, is that repository', () => {
    expect(
      repositoryOf(answerTo(/^GET \/repos\/octokit-fixture-org\/hello-world$/, 200), addresses),
    ).toMatchObject({
      name: 'hello-world',
      visibility: 'PUBLIC',
    })
    expect(repositoryOf(answerTo(/^GET \/repositories\/1000$/, 200), addresses)).toMatchObject({
      id: '1000',
      name: 'rename-repository-newname',
    })
  })

  test('for a former name, says where to go: on the same server', () => {
    for (const [request, status] of [
      [/^GET \/repos\/octokit-fixture-org\/rename-repository$/, 301],
      [/^PATCH \/repos\/octokit-fixture-org\/rename-repository$/, 307],
    ] as const) {
      expect(answerTo(request, status).headers.location).toBe('https://api.github.com/repositories/1000')
    }
  })

  test('to a look at an organization, is an organization', () => {
    expect(organizationOf(answerTo(/^GET \/orgs\//, 200))).toMatchObject({
      login: 'octokit-fixture-org',
      id: '1000',
    })
  })

  test('to what it refuses, is told with its fields', () => {
    const refused = answerTo(/\/labels$/, 422)
    expect(toForgeError(refused, refused.description)).toMatchObject({
      code: 'INVALID',
      message: expect.stringMatching(/“Validation Failed; color: invalid”/),
    })
    const absent = answerTo(/\/protection$/, 404)
    expect(toForgeError(absent, absent.description)).toMatchObject({ code: 'NOT_FOUND' })
    for (const each of [refused, absent]) expect(rateLimitOf(each, 0)).toBeNull()
  })
})
