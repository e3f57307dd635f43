import { readFileSync } from 'node:fs'
import { describe, expect, test } from '@jest/globals'
import { parseBody } from './github-api.ts'
import { toForgeError } from './github-errors.ts'
import type { HttpResponse } from './http-client.ts'
import { OrganizationBody } from './organizations.ts'
import { rateLimitPauseMs } from './rate-limit.ts'
import { RepositoryBody } from './repositories.ts'

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

function recordedResponse(request: RegExp, status: number): HttpResponse {
  const exchange = exchanges.find(
    (each) => request.test(`${each.method} ${each.path}`) && each.status === status,
  )
  if (!exchange) throw new Error(`No recording of ${request} with ${status}.`)
  const { headers, body, path } = exchange
  return { status, headers, body: Buffer.from(JSON.stringify(body)), url: `https://api.github.com${path}` }
}

describe('a recorded response of the real GitHub', () => {
  test('to a create in an organization is a repository', () => {
    expect(parseBody(recordedResponse(/^POST \/orgs\//, 201), RepositoryBody)).toMatchObject({
      id: expect.stringMatching(/^\d+$/),
      owner: 'octokit-fixture-org',
      fullName: expect.stringMatching(/^octokit-fixture-org\//),
      visibility: expect.stringMatching(/^(PUBLIC|PRIVATE)$/),
      homepage: null,
      url: expect.stringMatching(/^https:\/\/github\.com\/octokit-fixture-org\//),
      cloneUrl: expect.stringMatching(/^https:\/\/github\.com\/octokit-fixture-org\/.*\.git$/),
    })
  })

  test('to a lookup, also after a rename, is that repository', () => {
    const found = recordedResponse(/^GET \/repos\/octokit-fixture-org\/hello-world$/, 200)
    expect(parseBody(found, RepositoryBody)).toMatchObject({ name: 'hello-world', visibility: 'PUBLIC' })
    const renamed = recordedResponse(/^GET \/repositories\/1000$/, 200)
    expect(parseBody(renamed, RepositoryBody)).toMatchObject({
      id: '1000',
      name: 'rename-repository-newname',
    })
  })

  test('for a former name redirects to the same server', () => {
    for (const [request, status] of [
      [/^GET \/repos\/octokit-fixture-org\/rename-repository$/, 301],
      [/^PATCH \/repos\/octokit-fixture-org\/rename-repository$/, 307],
    ] as const) {
      const { location } = recordedResponse(request, status).headers
      expect(location).toBe('https://api.github.com/repositories/1000')
    }
  })

  test('to a lookup of an organization is an organization', () => {
    expect(parseBody(recordedResponse(/^GET \/orgs\//, 200), OrganizationBody)).toMatchObject({
      login: 'octokit-fixture-org',
      id: '1000',
    })
  })

  test('to a refused request becomes an error that quotes its fields', () => {
    const call = { action: 'do it', grantHint: 'https://example.com', redact: (text: string) => text }
    const refused = recordedResponse(/\/labels$/, 422)
    expect(toForgeError(refused, call)).toMatchObject({
      code: 'INVALID',
      message: expect.stringMatching(/“Validation Failed; color: invalid”/),
    })
    const absent = recordedResponse(/\/protection$/, 404)
    expect(toForgeError(absent, call)).toMatchObject({ code: 'NOT_FOUND' })
    for (const each of [refused, absent]) expect(rateLimitPauseMs(each, 0)).toBeNull()
  })
})

test('a malformed response is an error that names the field and the setting', () => {
  const response = recordedResponse(/^GET \/repositories\/1000$/, 200)
  const { id: _id, ...body } = JSON.parse(response.body.toString())
  const malformed = { ...response, body: Buffer.from(JSON.stringify(body)) }
  expect(() => parseBody(malformed, RepositoryBody)).toThrow(
    expect.objectContaining({
      code: 'UNEXPECTED',
      message: expect.stringMatching(/the field id is missing or malformed.*GITHUB_API_URL/),
    }),
  )
})
