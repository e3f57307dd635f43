import { afterAll, beforeAll, expect, test } from '@jest/globals'
import { createDataFolder, type DataFolder } from './support/data-folder.ts'
import { DEPLOY_MUTATION, type DeployResult, deployInput } from './support/inputs.ts'
import { createTestDatabase, type TestDatabase } from './support/test-database.ts'
import { TestServer } from './support/test-server.ts'
import { Viewer } from './support/viewer.ts'

const DEPLOYMENTS = 20
/**
 * Possible defaults of a database or a role; each, alone or with others, differs from
 * what Shipcast relies on.
 */
const DATABASE_DEFAULTS = {
  default_transaction_isolation: 'serializable',
  datestyle: 'SQL, DMY',
  timezone: 'Asia/Kathmandu',
  synchronous_commit: 'off',
  bytea_output: 'escape',
  standard_conforming_strings: 'off',
  statement_timeout: '2s',
  idle_session_timeout: '2s',
  transaction_timeout: '50ms',
  array_nulls: 'off',
  transform_null_equals: 'on',
  enable_indexscan: 'off',
  jit_above_cost: '0',
  plan_cache_mode: 'force_custom_plan',
  check_function_bodies: 'off',
}
const ROLE_DEFAULTS = {
  lock_timeout: '1ms',
  default_transaction_read_only: 'on',
  default_transaction_deferrable: 'on',
  idle_in_transaction_session_timeout: '1ms',
  intervalstyle: 'sql_standard',
  extra_float_digits: '-15',
  backslash_quote: 'off',
  client_encoding: 'LATIN1',
  row_security: 'off',
  session_replication_role: 'replica',
  exit_on_error: 'on',
  client_min_messages: 'debug5',
  quote_all_identifiers: 'on',
  default_table_access_method: 'nonsense',
}

let database: TestDatabase
let folder: DataFolder
let server: TestServer | undefined
const role = `test_${crypto.randomUUID().slice(0, 8)}`

beforeAll(async () => {
  // lower('I') is not 'i' in Turkish.
  database = await createTestDatabase(`template template0 locale_provider icu icu_locale 'tr-TR'`)
  folder = await createDataFolder()
  const setDefaults = async (target: string, settings: Record<string, string>) => {
    for (const [name, value] of Object.entries(settings)) {
      await database.database.query(`alter ${target} set ${name} = '${value}'`)
    }
  }
  const [{ name } = { name: '' }] = await database.database.query<{ name: string }>(
    'select current_database() as name',
  )
  const url = new URL(database.url)
  const password = url.searchParams.get('password')
  await database.database.query(
    `create role ${role} login superuser password '${password}'; create schema odd`,
  )
  url.searchParams.set('user', role)
  await setDefaults(`database ${name}`, DATABASE_DEFAULTS)
  await setDefaults(`role ${role} in database ${name}`, ROLE_DEFAULTS)
  await database.database.query(
    `alter role ${role} in database ${name} set search_path = absent, odd, public`,
  )
  server = await TestServer.start({ dataDir: folder.path, env: { DATABASE_URL: url.href } })
})

afterAll(async () => {
  await server?.stop()
  await database.database.query(`drop owned by ${role} cascade; drop role ${role}`)
  await database.drop()
  await folder.remove()
})

test('defaults of database and role have no effect: concurrent deployments succeed, times are right, events have no gap', async () => {
  const node = server as TestServer
  const viewer = new Viewer(node.socketUrl)
  const { cursor } = await viewer.connected()
  viewer.follow({ after: cursor })
  const before = Date.now()
  const answers = await Promise.all(
    Array.from({ length: DEPLOYMENTS }, () =>
      node.request<DeployResult>(DEPLOY_MUTATION, { input: deployInput() }),
    ),
  )
  expect(answers.flatMap(({ errors = [] }) => errors)).toEqual([])
  for (const { data } of answers) {
    expect((await viewer.waitForEnd(data.deploy.id)).at(-1)).toMatchObject({ status: 'SUCCEEDED' })
  }
  const positions = viewer.events.map((event) => Number(event.cursor.slice(4)))
  expect(positions).toEqual(positions.map((_, i) => i + 1))
  expect(viewer.errors).toEqual([])
  await viewer.close()

  const { data, errors } = await node.request<{
    deployments: {
      edges: {
        node: { createdAt: string; finishedAt: string; events: { at: string }[] }
      }[]
    }
  }>('{ deployments(first: 20) { edges { node { createdAt finishedAt events { at } } } } }')
  expect(errors).toBeUndefined()
  const times = data.deployments.edges.flatMap(({ node }) => [
    node.createdAt,
    node.finishedAt,
    ...node.events.map(({ at }) => at),
  ])
  expect(times.length).toBeGreaterThan(DEPLOYMENTS * 6)
  for (const time of times) {
    expect(Date.parse(time)).toBeGreaterThanOrEqual(before - 1_000)
    expect(Date.parse(time)).toBeLessThanOrEqual(Date.now() + 1_000)
  }
  expect(node.log).not.toMatch(/WARN|ERROR/)
})

test('compares names case-insensitively in every locale of the database', async () => {
  const node = server as TestServer
  expect(await database.database.query(`select lower('I') as i`)).toEqual([{ i: 'ı' }])
  const deploy = (org: string, repo: string) =>
    node.request<DeployResult>(DEPLOY_MUTATION, { input: deployInput({ org, repo }) })
  const answers = await Promise.all([deploy('INFRA', 'INDEX'), deploy('infra', 'index')])
  expect(answers.map(({ errors }) => errors?.[0]?.extensions.code).toSorted()).toEqual([
    'CONFLICT',
    undefined,
  ])
  const { data } = await node.request<{ deployments: { edges: unknown[] } }>(
    '{ deployments(first: 2, org: "infra", repo: "index") { edges { cursor } } }',
  )
  expect(data.deployments.edges).toHaveLength(1)
})
