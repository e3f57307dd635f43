import { readFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import { CredentialStore } from '../src/auth/credentials/credential-store.ts'
import type { Grant } from '../src/config/grants.ts'
import { git } from './support/github/git.ts'
import { DEPLOY_MUTATION, type DeployResult, deployInput } from './support/inputs.ts'
import { MAX_WAIT_MS, waitUntil } from './support/processes.ts'
import { createMigratedDatabase, type TestDatabase } from './support/test-database.ts'
import { TestServer } from './support/test-server.ts'
import { Viewer } from './support/viewer.ts'

let database: TestDatabase
let server: TestServer
let credentials: CredentialStore
const viewers: Viewer[] = []

/** The organizations `here` and `elsewhere`. */
const ORGS = { here: 'acme', elsewhere: 'globex' }
type Place = keyof typeof ORGS

const tokens = { viewer: '', deployer: '', admin: '' }
type Role = keyof typeof tokens
const bearer = (token: string) => ({ authorization: `Bearer ${token}` })

/** A deployment of each organization, requested by another subject. */
const deployments = { here: '', elsewhere: '' }

beforeAll(async () => {
  database = await createMigratedDatabase()
  server = await TestServer.start({
    env: { DATABASE_URL: database.url, ACCESS: 'required', MUTATIONS_PER_MINUTE: '1000' },
  })
  credentials = new CredentialStore(database.database)
  tokens.viewer = await token('vera', { role: 'viewer', orgs: ['acme'] })
  tokens.deployer = await token('dave', { role: 'deployer', orgs: ['acme'] })
  tokens.admin = await token('ada', { role: 'admin', orgs: 'all' })
  const other = await token('olga', { role: 'deployer', orgs: 'all' })
  for (const place of ['here', 'elsewhere'] as const) deployments[place] = await deployAs(ORGS[place], other)
})

afterAll(async () => {
  await Promise.all(viewers.map((viewer) => viewer.close()))
  await server.stop()
  await server.removeData()
  await database.drop()
})

async function token(name: string, grant: Grant, lifetimeMs = 3_600_000): Promise<string> {
  const { secret } = await credentials.create({
    kind: 'token',
    subjectId: `service:${name}`,
    name,
    grants: [grant],
    lifetimeMs,
  })
  return secret
}

async function deployAs(org: string, by: string): Promise<string> {
  const { data, errors } = await server.request<DeployResult>(
    DEPLOY_MUTATION,
    { input: deployInput({ org }) },
    bearer(by),
  )
  if (errors) throw new Error(JSON.stringify(errors))
  await waitForStatus(data.deploy.id, 'SUCCEEDED')
  return data.deploy.id
}

async function waitForStatus(id: string, status: string): Promise<void> {
  const sql = 'select from deployments where id = $1 and status = $2'
  await waitUntil(
    async () => (await database.database.query(sql, [id, status])).length > 0,
    `deployment ${id} is ${status}`,
    MAX_WAIT_MS,
  )
}

/** Sets the status of a deployment, with an event. */
async function setStatus(
  id: string,
  status: 'WAITING' | 'CANCELLED',
  requestedBy = 'service:olga',
): Promise<void> {
  await database.database.query(
    `with moved as (
       update deployments set status = $2, step = 'CREATE_REPO', waiting_until = now() + interval '1 hour',
         run_at = now() + interval '1 hour', finished_at = null, error = null, leased_by = null,
         requested_by = jsonb_build_object('id', $3::text, 'name', 'requester'),
         sequence = sequence + 1, updated_at = clock_timestamp()
       where id = $1 returning *
     ) select append_event(row(moved.*)::deployments, null) from moved`,
    [id, status, requestedBy],
  )
}

async function connect(secret: string): Promise<Viewer> {
  const viewer = new Viewer(server.socketUrl, secret)
  viewers.push(viewer)
  await viewer.waitUntil(() => viewer.ack !== undefined || viewer.closeCode !== undefined)
  return viewer
}

type Response = { data?: Record<string, unknown> | null; code?: string }
type Execute = (query: string, variables?: Record<string, unknown>) => Promise<Response>

function overHttp(secret: string | undefined): Execute {
  return async (query, variables = {}) => {
    const { data, errors } = await server.request(
      query,
      variables,
      secret === undefined ? {} : bearer(secret),
    )
    return errors ? { code: String(errors[0]?.extensions.code) } : { data }
  }
}

async function overSocket(secret: string): Promise<Execute> {
  const viewer = await connect(secret)
  return async (query, variables = {}) => {
    try {
      return { data: await viewer.execute(query, variables) }
    } catch (error) {
      const [first] = JSON.parse((error as Error).message) as { extensions: { code: string } }[]
      return { code: String(first?.extensions.code) }
    }
  }
}

/** A cell of the table: `yes`, `–`, or the code of an error. */
type Outcome = string
const GONE = '–'

interface Try {
  role: Role
  place: Place
  secret: string
}

const outcomeOf = ({ code }: Response): Outcome =>
  code === undefined ? 'yes' : code === 'NOT_FOUND' ? GONE : code
const visibility = (isVisible: boolean): Outcome => (isVisible ? 'yes' : GONE)

/** Operations for both HTTP and the socket, by their name in the table. */
const OPERATIONS: Record<string, (execute: Execute, attempt: Try) => Promise<Outcome>> = {
  '`deploy`': async (execute, { place }) =>
    outcomeOf(await execute(DEPLOY_MUTATION, { input: deployInput({ org: ORGS[place] }) })),
  '`cancelDeployment`, own': (execute, attempt) =>
    change(execute, attempt, 'cancelDeployment', 'WAITING', true),
  '`cancelDeployment`, not own': (execute, attempt) =>
    change(execute, attempt, 'cancelDeployment', 'WAITING', false),
  '`retryDeployment`, own': (execute, attempt) =>
    change(execute, attempt, 'retryDeployment', 'CANCELLED', true),
  '`retryDeployment`, not own': (execute, attempt) =>
    change(execute, attempt, 'retryDeployment', 'CANCELLED', false),
  '`deployment`': async (execute, { place }) => {
    const answer = await execute('query ($id: ID!) { deployment(id: $id) { id org events { text } } }', {
      id: deployments[place],
    })
    return answer.code ?? visibility(answer.data?.deployment !== null)
  },
  '`deployments`': async (execute, { role, place }) => {
    const query = 'query ($org: String) { deployments(first: 100, org: $org) { edges { node { id org } } } }'
    const all = await execute(query)
    const some = await execute(query, { org: ORGS[place] })
    if (all.code !== undefined) return all.code
    const [listed, ofOrg] = [all, some].map(
      ({ data }) => (data?.deployments as { edges: { node: { id: string; org: string } }[] }).edges,
    )
    if (role !== 'admin') expect(listed?.every(({ node }) => node.org === 'acme')).toBe(true)
    const isIn = (edges: typeof listed) => edges?.some(({ node }) => node.id === deployments[place]) ?? false
    expect(isIn(ofOrg)).toBe(isIn(listed))
    return visibility(isIn(listed))
  },
  '`templates`': async (execute) => outcomeOf(await execute('{ templates { name } }')),
  '`me`': async (execute, { role }) => {
    const answer = await execute('{ me { role } }')
    if (answer.data) expect(answer.data.me).toMatchObject({ role: role.toUpperCase() })
    return outcomeOf(answer)
  },
  '`auditLog`': async (execute) => outcomeOf(await execute('{ auditLog { edges { node { id } } } }')),
}

async function change(
  execute: Execute,
  { role, place }: Try,
  mutation: string,
  state: 'WAITING' | 'CANCELLED',
  isOwn: boolean,
): Promise<Outcome> {
  const id = deployments[place]
  const names = { viewer: 'vera', deployer: 'dave', admin: 'ada' }
  await setStatus(id, state, isOwn ? `service:${names[role]}` : 'service:olga')
  const answer = await execute(`mutation ($id: ID!) { ${mutation}(id: $id) { status } }`, { id })
  if (answer.data) await waitForStatus(id, state === 'WAITING' ? 'CANCELLED' : 'SUCCEEDED')
  else await waitForStatus(id, state)
  return outcomeOf(answer)
}

/** Operations for the socket only. A later event proves that an earlier one was not sent. */
const SUBSCRIPTIONS: Record<string, (viewer: Viewer, attempt: Try) => Promise<Outcome>> = {
  '`deploymentStatus`, current state': async (viewer, { place }) => {
    await setStatus(deployments[place], 'WAITING')
    await waitForFeed(deployments[place])
    viewer.follow()
    return receivedEvents(viewer, place)
  },
  '`deploymentStatus`, replay': async (viewer, { place }) => {
    const { cursor } = await viewer.connected()
    await setStatus(deployments[place], 'CANCELLED')
    await waitForFeed(deployments[place])
    viewer.follow({ after: cursor })
    return receivedEvents(viewer, place)
  },
  '`deploymentStatus`, live': async (viewer, { place }) => {
    viewer.follow()
    await setStatus(deployments[place], 'CANCELLED')
    return receivedEvents(viewer, place)
  },
  '`deploymentStatus` of one': async (viewer, { place }) => {
    viewer.follow({ deploymentId: deployments[place] })
    await viewer.waitUntil(() => viewer.events.length + viewer.errors.length > 0)
    const [error] = viewer.errors as { extensions: { code: string } }[]
    return outcomeOf({ ...(error && { code: error.extensions.code }) })
  },
}

async function receivedEvents(viewer: Viewer, place: Place): Promise<Outcome> {
  const last = await deployAs(ORGS.here, tokens.admin)
  await viewer.waitForEnd(last)
  return visibility(viewer.eventsOf(deployments[place]).length > 0)
}

/** Waits until the node's feed has the newest event of the deployment. */
async function waitForFeed(id: string): Promise<void> {
  const watcher = await connect(tokens.admin)
  const [row] = await database.database.query<{ sequence: number }>(
    'select sequence from deployments where id = $1',
    [id],
  )
  watcher.follow({ deploymentId: id })
  await watcher.waitUntil(() => watcher.eventsOf(id).at(-1)?.sequence === row?.sequence)
  await watcher.close()
}

/** Operations with their own path. */
const PATHS: Record<string, (attempt: Partial<Try> & { place: Place }) => Promise<Outcome>> = {
  'clone URL': async ({ secret, place }) => {
    const [row] = await database.database.query<{ url: string }>(
      'select clone_url as url from deployments where id = $1',
      [deployments[place]],
    )
    const url = new URL(row?.url ?? '')
    for (const path of ['', '/', '/info/refs', '/info/refs?service=git-upload-pack']) {
      const headers: Record<string, string> = secret === undefined ? {} : bearer(secret)
      const { status } = await fetch(`${url.href}${path}`, { headers })
      if (secret === undefined) expect(status).toBe(401)
    }
    if (secret !== undefined) url.password = secret
    url.username = 'git'
    const result = await git('/', 'ls-remote', url.href).then(
      () => 'yes',
      (error: Error) => error.message,
    )
    if (result === 'yes') return 'yes'
    return result.includes('not found') ? GONE : 'UNAUTHENTICATED'
  },
  '`/metrics`': async ({ secret }) => {
    const { status } = await fetch(`${server.url}/metrics`, { headers: secret ? bearer(secret) : {} })
    return { 200: 'yes', 401: 'UNAUTHENTICATED', 403: 'FORBIDDEN' }[status] ?? String(status)
  },
}

/** The table of SECURITY.md: a row for each operation, its cells by their heading. */
const TABLE = (() => {
  const lines = readFileSync('SECURITY.md', 'utf8').split('\n')
  const start = lines.findIndex((line) => line.startsWith('| operation |'))
  const cellsOf = (line: string) =>
    line
      .split('|')
      .slice(1, -1)
      .map((cell) => cell.trim())
  const headings = cellsOf(lines[start] ?? '').slice(1)
  const rows = lines.slice(start + 2, lines.indexOf('', start)).map(cellsOf)
  return rows.flatMap(([operation = '', ...cells]) =>
    cells.map((cell, i) => ({ operation, who: headings[i] ?? '', outcome: cell })),
  )
})()

describe('permissions are those of SECURITY.md', () => {
  test('every operation of the schema has a row', async () => {
    const schema = readFileSync('schema.gql', 'utf8')
    const names = [...schema.matchAll(/^type (?:Query|Mutation|Subscription) \{\n(.*?)^\}/gms)].flatMap(
      ([, body = '']) => [...body.matchAll(/^ {2}(\w+)[(:]/gm)].map(([, name]) => `\`${name}\``),
    )
    expect(names.length).toBeGreaterThan(8)
    expect(names.filter((name) => !TABLE.some(({ operation }) => operation.startsWith(name)))).toEqual([])
  })

  test.each(TABLE)('$operation, $who: $outcome', async ({ operation, who, outcome }) => {
    const [name = '', where = 'here'] = who.split(' ')
    if (name === 'nobody') return expect(await withoutAuthentication(operation)).toEqual(outcome)
    const role = name as Role
    const places: Place[] = role === 'admin' ? ['here', 'elsewhere'] : [where as Place]
    for (const place of places) {
      const attempt = { role, place, secret: tokens[role] }
      const path = PATHS[operation]
      const subscription = SUBSCRIPTIONS[operation]
      const both = OPERATIONS[operation]
      if (path) expect(await path(attempt)).toBe(outcome)
      else if (subscription) expect(await subscription(await connect(attempt.secret), attempt)).toBe(outcome)
      else if (both) {
        expect(await both(overHttp(attempt.secret), attempt)).toBe(outcome)
        expect(await both(await overSocket(attempt.secret), attempt)).toBe(outcome)
      } else throw new Error(`The test does not know ${operation}.`)
    }
  })

  async function withoutAuthentication(operation: string): Promise<Outcome> {
    const path = PATHS[operation]
    if (path) return path({ place: 'here' })
    const viewer = new Viewer(server.socketUrl)
    await viewer.waitUntil(() => viewer.closeCode !== undefined)
    expect(viewer.closeCode).toBe(4401)
    const both = OPERATIONS[operation]
    return both ? both(overHttp(undefined), { role: 'viewer', place: 'here', secret: '' }) : 'UNAUTHENTICATED'
  }
})

describe('a subject cannot', () => {
  test('find the deployment of another one by its idempotency key, or block the key', async () => {
    const idempotencyKey = crypto.randomUUID()
    const [one, other] = [
      await token('one', { role: 'deployer', orgs: ['acme'] }),
      await token('other', { role: 'deployer', orgs: ['globex'] }),
    ]
    const request = { ...deployInput(), idempotencyKey }
    const first = await server.request<DeployResult>(DEPLOY_MUTATION, { input: request }, bearer(one))
    const again = await server.request<DeployResult>(DEPLOY_MUTATION, { input: request }, bearer(one))
    expect(again.data.deploy.id).toBe(first.data.deploy.id)
    const others = await server.request<DeployResult>(
      DEPLOY_MUTATION,
      { input: { ...request, org: 'globex' } },
      bearer(other),
    )
    expect(others.errors).toBeUndefined()
    expect(others.data.deploy.id).not.toBe(first.data.deploy.id)
  })

  test('see, through its own idempotency key, a deployment that it may no longer see', async () => {
    const secret = await token('moved', { role: 'deployer', orgs: ['globex'] })
    const key = { idempotencyKey: `moved ${crypto.randomUUID()}` }
    const { data } = await server.request<DeployResult>(
      DEPLOY_MUTATION,
      { input: deployInput({ org: 'globex', ...key }) },
      bearer(secret),
    )
    await credentials.updateTokenGrants('moved', [{ role: 'deployer', orgs: ['acme'] }])
    const again = await server.request(
      DEPLOY_MUTATION,
      { input: deployInput({ org: 'acme', ...key }) },
      bearer(secret),
    )
    expect(again.errors?.[0]?.extensions.code).toBe('CONFLICT')
    expect(JSON.stringify(again)).not.toContain(data.deploy.id)
  })

  test('publish events with the connection id of another one, which would then not receive them', async () => {
    const [one, other] = [await connect(tokens.viewer), await connect(tokens.deployer)]
    for (const viewer of [one, other]) viewer.follow()
    const sentinel = await deployAs('acme', tokens.admin)
    for (const viewer of [one, other]) await viewer.waitForEnd(sentinel)
    const { connectionId } = await one.connected()
    const headers = { ...bearer(tokens.deployer), 'x-connection-id': connectionId }
    const { data } = await server.request<DeployResult>(DEPLOY_MUTATION, { input: deployInput() }, headers)
    expect((await one.waitForEnd(data.deploy.id)).map(({ sequence }) => sequence)).toEqual([1, 2, 3, 4, 5])
  })

  test('gain rights through a token with the same name: it is the same subject, but each token has its own role', async () => {
    const id = await deployAs('acme', await token('twin', { role: 'deployer', orgs: ['acme'] }))
    await setStatus(id, 'CANCELLED', 'service:twin')
    const viewerTwin = await token('twin', { role: 'viewer', orgs: ['acme'] })
    const retry = 'mutation ($id: ID!) { retryDeployment(id: $id) { status requestedBy } }'
    expect((await server.request(retry, { id }, bearer(viewerTwin))).errors?.[0]?.extensions.code).toBe(
      'FORBIDDEN',
    )
    const deployerTwin = await token('twin', { role: 'deployer', orgs: ['acme'] })
    expect((await server.request(retry, { id }, bearer(deployerTwin))).errors).toBeUndefined()
  })
})

describe('the audit log', () => {
  test('records who did what, to what, from where, and with what result; entries cannot be changed or removed', async () => {
    const by = await token('audited', { role: 'deployer', orgs: ['acme'] })
    const request = deployInput()
    const { data } = await server.request<DeployResult>(DEPLOY_MUTATION, { input: request }, bearer(by))
    await server.request(DEPLOY_MUTATION, { input: deployInput({ org: 'globex', repo: 'no' }) }, bearer(by))
    await server.request(
      'mutation ($id: ID!) { cancelDeployment(id: $id) { id } }',
      { id: deployments.elsewhere },
      bearer(by),
    )
    const log = await server.request<{ auditLog: { edges: { node: object }[]; pageInfo: object } }>(
      `{ auditLog(subject: "audited", first: 2) {
           edges { node { action subject subjectId address target deploymentId result } } pageInfo { hasNextPage endCursor }
         } }`,
      {},
      bearer(tokens.admin),
    )
    const entry = { subject: 'audited', subjectId: 'service:audited', address: '127.0.0.1' }
    expect(log.data.auditLog.edges.map(({ node }) => node)).toEqual([
      {
        ...entry,
        action: 'CANCEL',
        target: expect.stringMatching(/^globex\//),
        deploymentId: null,
        result: 'NOT_FOUND',
      },
      { ...entry, action: 'DEPLOY', target: 'globex/no', deploymentId: null, result: 'FORBIDDEN' },
    ])
    const { endCursor } = log.data.auditLog.pageInfo as { endCursor: string }
    const older = await server.request<typeof log.data>(
      `query ($after: String) { auditLog(subject: "audited", action: DEPLOY, after: $after) {
           edges { node { deploymentId result target } } pageInfo { hasNextPage } } }`,
      { after: endCursor },
      bearer(tokens.admin),
    )
    expect(older.data.auditLog).toEqual({
      edges: [{ node: { deploymentId: data.deploy.id, result: 'OK', target: `acme/${request.repo}` } }],
      pageInfo: { hasNextPage: false },
    })
    for (const change of [
      "update audit_log set result = 'x'",
      'delete from audit_log',
      'truncate audit_log',
    ]) {
      await expect(database.database.query(change, [])).rejects.toThrow('append-only')
    }
  })
})
