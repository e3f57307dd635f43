import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals'
import { MockGitHub } from '../../test/support/deployments/mock-github.ts'
import { LOCAL_REQUEST, TestNode } from '../../test/support/deployments/test-node.ts'
import { createMigratedDatabase, type TestDatabase } from '../../test/support/test-database.ts'
import type { RequestContext } from '../auth/principal.ts'
import { rightsOf } from '../auth/rights.ts'
import type { DeployInput } from './deploy.input.ts'

let testDatabase: TestDatabase
let node: TestNode

beforeAll(async () => {
  testDatabase = await createMigratedDatabase()
})

afterAll(async () => {
  await testDatabase.drop()
})

beforeEach(async () => {
  node = await TestNode.start({ database: testDatabase.database, github: new MockGitHub() })
})

afterEach(() => node.stop())

function requestFrom(name: string, signal = LOCAL_REQUEST.signal): RequestContext {
  const rights = rightsOf([{ role: 'deployer', orgs: ['acme', 'globex'] }])
  return { ...LOCAL_REQUEST, subject: { id: `service:${name}`, name, rights }, signal }
}

function request(overrides: Partial<DeployInput> = {}): DeployInput {
  const contents = { files: [{ path: 'README.md', content: '# Demo\n' }] }
  return { org: 'acme', repo: `demo-${crypto.randomUUID()}`, contents, ...overrides }
}

/** Contents that are large enough to need a slot for packing. */
function large(overrides: Partial<DeployInput> = {}): DeployInput {
  const files = Array.from({ length: 3_000 }, (_, n) => ({ path: `src/${n}.txt`, content: `file ${n}\n` }))
  return request({ contents: { files }, ...overrides })
}

/** The audit entries of a subject, oldest first. */
function auditEntriesOf(name: string): Promise<{ action: string; target: string; result: string }[]> {
  return testDatabase.database.query(
    'select action, target, result from audit_log where subject_id = $1 order by id',
    [`service:${name}`],
  )
}

const resultsOf = async (name: string) => (await auditEntriesOf(name)).map(({ result }) => result)

describe('many concurrent large deployments', () => {
  test.each(['globex', 'acme'])('do not delay another subject in %s', async (org) => {
    const [mallory, bob] = [`mallory-${org}`, `bob-${org}`]
    const many = Array.from({ length: 24 }, () => node.service.deploy(large(), requestFrom(mallory)))
    const settling = Promise.allSettled(many)
    const single = await node.service.deploy(large({ org }), requestFrom(bob))
    expect(single.org).toBe(org)

    const settled = await settling
    const rejected = settled.filter((outcome) => outcome.status === 'rejected')
    expect(rejected.length).toBeGreaterThan(0)
    for (const { reason } of rejected) {
      expect(reason).toMatchObject({ code: 'RATE_LIMITED', extensions: { retryAfterMs: expect.any(Number) } })
    }
    const results = await resultsOf(mallory)
    expect(results).toHaveLength(24)
    expect(results.filter((result) => result === 'RATE_LIMITED')).toHaveLength(rejected.length)
    expect(await resultsOf(bob)).toEqual(['OK'])
  })

  test('leave the queue when their client disconnects', async () => {
    const abort = new AbortController()
    const many = Array.from({ length: 18 }, () =>
      node.service.deploy(large(), requestFrom('gone', abort.signal)),
    )
    const settling = Promise.allSettled(many)
    await new Promise(setImmediate)
    abort.abort()
    for (const outcome of await settling) expect(outcome).toMatchObject({ reason: { name: 'AbortError' } })
    expect(await resultsOf('gone')).toEqual(Array(18).fill('BAD_REQUEST'))
    expect((await node.service.deploy(large(), requestFrom('gone'))).status).toBe('RUNNING')
  })
})

describe('the audit log', () => {
  test('records every attempted mutation, including those that fail internally', async () => {
    const { id } = await node.service.deploy(request(), requestFrom('faulty'))
    await node.eventsOf(id)
    await testDatabase.database.query(
      'alter table deployments add constraint broken check (false) not valid',
      [],
    )
    try {
      await expect(node.service.deploy(request(), requestFrom('faulty'))).rejects.toThrow('broken')
    } finally {
      await testDatabase.database.query('alter table deployments drop constraint broken', [])
    }
    await testDatabase.database.query('alter function deployment_snapshot rename to renamed', [])
    try {
      await expect(node.service.cancel(id, requestFrom('faulty'))).rejects.toThrow('deployment_snapshot')
      await expect(node.service.retry(id, requestFrom('faulty'))).rejects.toThrow('deployment_snapshot')
    } finally {
      await testDatabase.database.query('alter function renamed rename to deployment_snapshot', [])
    }
    await expect(node.service.retry(id, requestFrom('faulty'))).rejects.toMatchObject({ code: 'CONFLICT' })
    expect(await auditEntriesOf('faulty')).toMatchObject([
      { action: 'DEPLOY', result: 'OK' },
      { action: 'DEPLOY', result: 'INTERNAL' },
      { action: 'CANCEL', target: id, result: 'INTERNAL' },
      { action: 'RETRY', target: id, result: 'INTERNAL' },
      { action: 'RETRY', target: expect.stringMatching(/^acme\//), result: 'CONFLICT' },
    ])
  })

  test('does not record mutations rejected by the rate limit, whose number is unlimited', async () => {
    const attempts = Array.from({ length: 121 }, () => node.service.cancel('x', requestFrom('hasty')))
    const settled = await Promise.allSettled(attempts)
    expect(settled.at(-1)).toMatchObject({ reason: { code: 'RATE_LIMITED' } })
    expect(await resultsOf('hasty')).toEqual(Array(120).fill('NOT_FOUND'))
  })

  test('does not hide the result of a mutation when it cannot be written', async () => {
    await testDatabase.database.query('alter table audit_log add constraint shut check (false) not valid', [])
    try {
      const rejection = node.service.deploy(request({ org: 'initech' }), requestFrom('unrecorded'))
      await expect(rejection).rejects.toMatchObject({ code: 'FORBIDDEN' })
      // Nothing is stored without its entry.
      await expect(node.service.deploy(request(), requestFrom('unrecorded'))).rejects.toThrow('shut')
    } finally {
      await testDatabase.database.query('alter table audit_log drop constraint shut', [])
    }
    expect(await auditEntriesOf('unrecorded')).toEqual([])
  })

  test('escapes targets that could control a terminal', async () => {
    const odd = ['a\u001b[31m', '\u202egro', 'a\nb', '\0', 'x'.repeat(5_000), '', '\ud800']
    for (const org of odd) {
      await expect(node.service.deploy(request({ org, repo: 'x' }), requestFrom('odd'))).rejects.toThrow()
      await expect(node.service.cancel(org, requestFrom('odd'))).rejects.toMatchObject({ code: 'NOT_FOUND' })
    }
    const entries = await auditEntriesOf('odd')
    expect(entries).toHaveLength(2 * odd.length)
    for (const { target } of entries) {
      expect(target).not.toMatch(/[\p{C}\p{Zl}\p{Zp}]/u)
      expect(target.length).toBeLessThan(600)
    }
    expect(entries[0]?.target).toBe('"a\\u001b[31m/x"')
  })
})
