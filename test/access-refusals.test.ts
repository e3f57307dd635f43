import { spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { request as httpRequest } from 'node:http'
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import { WebSocket } from 'ws'
import { Database } from '../src/database/database.ts'
import { createDataFolder, type DataFolder } from './support/data-folder.ts'
import { git } from './support/github/git.ts'
import { DEPLOY_MUTATION, type DeployResult, deployInput } from './support/inputs.ts'
import { withTimeout } from './support/processes.ts'
import { TestServer } from './support/test-server.ts'
import { Viewer } from './support/viewer.ts'

let server: TestServer
let admin: string
let deployer: string

beforeAll(async () => {
  server = await TestServer.start({
    env: {
      HOST: '0.0.0.0',
      ACCESS: 'required',
      MUTATIONS_PER_MINUTE: '20',
      SUBSCRIPTIONS_PER_MINUTE: '10',
      COST_PER_MINUTE: '30000',
      LOG_LEVEL: 'debug',
    },
  })
  admin = command('create', '--name', 'ada', '--role', 'admin').stdout.trim()
  deployer = command('create', '--name', 'ci', '--role', 'deployer', '--org', 'acme').stdout.trim()
})

afterAll(async () => {
  await server.stop()
  await server.removeData()
})

/** The real command, while the server runs. */
function command(...args: string[]): { stdout: string; stderr: string; status: number | null } {
  const env = { PATH: process.env.PATH, DATA_DIR: server.dataDir }
  return spawnSync(process.execPath, ['dist/cli/token.js', ...args], { env, encoding: 'utf8' })
}

const bearer = (token: string) => ({ authorization: `Bearer ${token}` })
const codes = (answer: { errors?: { extensions: Record<string, unknown> }[] }) =>
  answer.errors?.map(({ extensions }) => extensions.code)

async function post(body: string, headers: Record<string, string>): Promise<Response> {
  return fetch(`${server.url}/graphql`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body,
  })
}

describe('a start that would expose the server without authentication', () => {
  let folder: DataFolder

  beforeAll(async () => {
    folder = await createDataFolder()
  })

  afterAll(() => folder.remove())

  test.each([
    [{ HOST: '0.0.0.0' }, 'HOST=0.0.0.0'],
    [{ HOST: '::' }, 'HOST=::'],
    [{ HOST: '0.0.0.0', ACCESS: 'local' }, 'HOST=0.0.0.0'],
    [{ PUBLIC_URL: 'https://shipcast.example.com' }, 'PUBLIC_URL=https://shipcast.example.com'],
  ])('%p is refused, with the settings to add', async (env, named) => {
    const error = await TestServer.start({ dataDir: folder.path, env }).then(
      () => undefined,
      (error: Error) => error.message,
    )
    for (const setting of [named, 'ACCESS=required', 'OIDC_ISSUER', 'GITHUB_OAUTH_CLIENT_ID']) {
      expect(error).toContain(setting)
    }
  })

  test.each([
    [{ ACCESS: 'open' }, 'ACCESS'],
    [{ OIDC_ISSUER: 'https://id.example.com' }, 'OIDC_CLIENT_ID'],
    [
      { OIDC_ISSUER: 'http://id.example.com', OIDC_CLIENT_ID: 'a', OIDC_CLIENT_SECRET: 'hunter2' },
      'OIDC_ISSUER',
    ],
    [{ GITHUB_OAUTH_CLIENT_ID: 'a' }, 'GITHUB_OAUTH_CLIENT_SECRET'],
    [{ GITHUB_OAUTH_CLIENT_ID: 'a', GITHUB_OAUTH_CLIENT_SECRET: 'hunter2' }, 'ACCESS_ROLES'],
    [
      {
        GITHUB_OAUTH_CLIENT_ID: 'a',
        GITHUB_OAUTH_CLIENT_SECRET: 'hunter2',
        ACCESS_ROLES: 'acme=deployer',
      },
      'ACCESS_ROLES',
    ],
    [
      {
        GITHUB_OAUTH_CLIENT_ID: 'a',
        GITHUB_OAUTH_CLIENT_SECRET: 'hunter2',
        ACCESS_ROLES: 'acme=admin',
        PUBLIC_URL: 'http://shipcast.example.com',
      },
      'PUBLIC_URL',
    ],
    [{ TRUSTED_PROXIES: 'everybody' }, 'TRUSTED_PROXIES'],
  ])('%p is refused, and the message names the setting', async (env, named) => {
    const error = await TestServer.start({ dataDir: folder.path, env: env as Record<string, string> }).then(
      () => undefined,
      (error: Error) => error.message,
    )
    expect(error).toContain(named)
    expect(error).not.toContain('hunter2')
    expect(error).not.toMatch(/^ +at |"level"/m)
  })
})

describe('without authentication', () => {
  let open: TestServer

  beforeAll(async () => {
    open = await TestServer.start()
  })

  afterAll(async () => {
    await open.stop()
    await open.removeData()
  })

  test.each<Record<string, string>>([
    { 'x-forwarded-for': '203.0.113.7' },
    { 'x-forwarded-for': '127.0.0.1, 2001:db8::1' },
    { 'x-forwarded-for': 'unknown' },
    { 'x-real-ip': '203.0.113.7' },
    { forwarded: 'for=127.0.0.1, for="[2001:db8::1]:4711";proto=https' },
  ])('requests that a proxy on this machine forwards from others are refused: %p', async (headers) => {
    for (const path of ['/', '/graphql', '/git/acme/demo.git/HEAD', '/metrics']) {
      const answer = await fetch(open.url + path, { headers })
      expect([path, answer.status]).toEqual([path, 403])
      expect(await answer.text()).toContain('ACCESS=required')
    }
    const socket = new WebSocket(open.socketUrl, 'graphql-transport-ws', { headers })
    const [{ message }] = await withTimeout(once(socket, 'error'), 'the socket is refused')
    expect(message).toContain('403')
  })

  test('only names of this machine are accepted: a network address means that a port is forwarded', async () => {
    const statusAs = (name: string) =>
      new Promise<number | undefined>((resolve, reject) => {
        const headers = { host: `${name}:${open.port}` }
        const sent = httpRequest({ host: '127.0.0.1', port: open.port, path: '/', headers }, (response) => {
          response.resume()
          resolve(response.statusCode)
        })
        sent.on('error', reject).end()
      })
    for (const name of [
      '192.0.2.1',
      '[2001:db8::1]',
      'shipcast.example.com',
      '0.0.0.0',
      '127.0.0.1.nip.io',
    ]) {
      expect([name, await statusAs(name)]).toEqual([name, 403])
    }
    for (const name of ['127.0.0.1', 'localhost', '[::1]', '127.1']) {
      expect([name, await statusAs(name)]).not.toEqual([name, 403])
    }
  })

  test.each<Record<string, string>>([
    {},
    { 'x-forwarded-for': '127.0.0.1' },
    { 'x-forwarded-for': '::1, ::ffff:127.0.0.1', 'x-real-ip': '127.0.0.1' },
    { forwarded: 'for=127.0.0.1;proto=http;host=localhost, for="[::1]:5000"' },
  ])('requests from this machine are accepted, with and without a proxy: %p', async (headers) => {
    const { data } = await open.request('{ me { name } }', {}, headers)
    expect(data).toEqual({ me: { name: 'local' } })
  })
})

describe('a token', () => {
  test('is shown once, appears in no table and no log, and its last use is listed', async () => {
    expect(deployer).toMatch(/^shipcast_[A-Za-z0-9_-]{43}$/)
    await server.request('{ me { name } }', {}, bearer(deployer))
    await server.request('{ me { name } }', {}, bearer(`${deployer}x`))
    const list = command('list').stdout
    expect(list).toMatch(/\tci\tdeployer of acme\tcreated .*\tvalid until .*\tlast used 20/)
    expect(list).not.toContain(deployer)
    const { data } = await server.request(
      '{ auditLog(first: 500) { edges { node { action subject target result address } } } }',
      {},
      bearer(admin),
    )
    expect(JSON.stringify(data)).toContain('TOKEN_CREATE')
    expect(JSON.stringify(data) + server.log).not.toContain(deployer.slice(10))
    const dump = await wholeDatabase()
    expect(dump).toContain('service:ci')
    expect(dump).not.toContain(deployer.slice(10))
  })

  test('is neither created, changed nor revoked without an audit entry', async () => {
    expect(command('create', '--name', 'noted', '--role', 'viewer').status).toBe(0)
    const database = await Database.open({ dataDir: server.dataDir })
    const tokens = () =>
      database.query(
        `select name, grants, revoked_at from access_credentials where name in ('noted', 'unnoted')`,
        [],
      )
    const before = await tokens()
    await database.query(`alter table audit_log add constraint nothing_new check (false) not valid`, [])
    try {
      for (const args of [
        ['create', '--name', 'unnoted', '--role', 'viewer'],
        ['change', '--name', 'noted', '--role', 'admin'],
        ['revoke', '--name', 'noted'],
      ]) {
        expect(command(...args)).toMatchObject({ status: 1, stdout: '' })
      }
      expect(await tokens()).toEqual(before)
    } finally {
      await database.query('alter table audit_log drop constraint nothing_new', [])
      await database.close()
    }
  })

  test('is created even if the account that runs the command has no name, as in a container', () => {
    const nameless = `import os from 'node:os'
      import { syncBuiltinESMExports } from 'node:module'
      os.userInfo = () => { throw new Error('uv_os_get_passwd returned ENOENT') }
      syncBuiltinESMExports()`
    const env = { PATH: process.env.PATH, DATA_DIR: server.dataDir }
    const args = ['dist/cli/token.js', 'create', '--name', 'contained', '--role', 'viewer']
    const node = ['--import', `data:text/javascript,${encodeURIComponent(nameless)}`, ...args]
    const { stdout, stderr } = spawnSync(process.execPath, node, { env, encoding: 'utf8' })
    expect({ stdout, stderr }).toMatchObject({ stdout: expect.stringMatching(/^shipcast_/) })
  })

  test.each([
    ['nothing', undefined],
    ['an empty one', 'Bearer '],
    ['a wrong one', `Bearer shipcast_${'A'.repeat(43)}`],
    ['one without its prefix', 'BARE'],
    ['an unsigned JSON web token', `Bearer ${jwt({ alg: 'none' }, { sub: 'ada', role: 'admin' })}.`],
    ['another scheme', 'Digest username="ada"'],
    ['the hash of one', 'HASH'],
    ['SQL', `Bearer ' or '1'='1`],
  ])('%s is refused over HTTP, on the socket and for clones', async (_what, given) => {
    const authorization =
      given === 'BARE' ? `Bearer ${admin.slice(9)}` : given === 'HASH' ? await hashOf(admin) : given
    const headers: Record<string, string> = authorization === undefined ? {} : { authorization }
    const answer = await post('{"query":"{ me { name } }"}', headers)
    expect(answer.status).toBe(401)
    expect(codes(await answer.json())).toEqual(['UNAUTHENTICATED'])
    expect((await fetch(`${server.url}/git/acme/demo.git/info/refs`, { headers })).status).toBe(401)
    expect((await fetch(`${server.url}/metrics`, { headers })).status).toBe(401)
    const viewer = new Viewer(server.socketUrl, authorization?.replace(/^Bearer /, ''))
    await viewer.waitUntil(() => viewer.closeCode !== undefined)
    expect(viewer.closeCode).toBe(4401)
  })

  test('may also be sent with the upgrade of the socket', async () => {
    const socket = new WebSocket(server.socketUrl, 'graphql-transport-ws', { headers: bearer(deployer) })
    socket.once('open', () => socket.send('{"type":"connection_init"}'))
    const [message] = await withTimeout(once(socket, 'message'), 'the socket receives a message')
    expect(JSON.parse(String(message))).toMatchObject({
      type: 'connection_ack',
      payload: { expiresAt: expect.stringMatching(/^20/) },
    })
    socket.terminate()
  })

  test('invalid commands are refused, with what to do', () => {
    for (const [args, words] of [
      [['create', '--name', 'x', '--role', 'deployer'], 'deployer requires organizations'],
      [
        ['create', '--name', 'x', '--role', 'admin', '--org', 'acme'],
        'admin cannot be limited to organizations',
      ],
      [['create', '--name', 'x', '--role', 'root'], 'viewer, deployer, admin'],
      [['create', '--role', 'viewer'], '--name'],
      [['create', '--name', 'x', '--role', 'viewer', '--expires', 'never'], '--expires'],
      [['create', '--name', 'x', '--role', 'viewer', '--org', '../x'], 'organization'],
      [['revoke', '--name', 'unknown'], 'No unrevoked token has the name or id'],
      [['rewoke'], 'npm run token -- list'],
      [['list', '--all'], 'npm run token -- list'],
    ] as const) {
      const { stderr, status } = command(...args)
      expect(stderr).toContain(words)
      expect(stderr).not.toMatch(/^ +at /m)
      expect(status).toBe(1)
    }
  })
})

describe('limits', () => {
  test('count each field of a mutation, and say when to retry', async () => {
    const token = command('create', '--name', 'busy', '--role', 'deployer', '--org', 'busy').stdout.trim()
    const numbers = Array.from({ length: 25 }, (_, i) => i)
    const variables = Object.fromEntries(numbers.map((i) => [`i${i}`, deployInput({ org: 'busy' })]))
    const answer = await server.request(
      `mutation (${numbers.map((i) => `$i${i}: DeployInput!`).join(' ')}) {
         ${numbers.map((i) => `a${i}: deploy(input: $i${i}) { id }`).join(' ')}
       }`,
      variables,
      bearer(token),
    )
    expect(codes(answer)).toEqual(['RATE_LIMITED'])
    const list = await server.request<{ deployments: { edges: unknown[] } }>(
      '{ deployments(org: "busy", first: 100) { edges { cursor } } }',
      {},
      bearer(token),
    )
    expect(list.data.deployments.edges).toHaveLength(20)
    const again = await server.request('mutation { cancelDeployment(id: "x") { id } }', {}, bearer(token))
    expect(codes(again)).toEqual(['RATE_LIMITED'])
    expect(again.errors?.[0]?.extensions.retryAfterMs).toBeGreaterThan(0)
    // Other subjects are not affected.
    expect(
      codes(await server.request('mutation { cancelDeployment(id: "x") { id } }', {}, bearer(deployer))),
    ).toEqual(['NOT_FOUND'])
  })

  test('count the subscriptions of one subject on all of its sockets', async () => {
    const token = command('create', '--name', 'many', '--role', 'viewer').stdout.trim()
    const viewers = [new Viewer(server.socketUrl, token), new Viewer(server.socketUrl, token)]
    for (const viewer of viewers) {
      await viewer.connected()
      for (let i = 0; i < 6; i++) viewer.follow()
    }
    const errors = () => viewers.flatMap((viewer) => viewer.errors)
    await Promise.race(viewers.map((viewer) => viewer.waitUntil(() => errors().length >= 2)))
    expect(errors()).toMatchObject([
      { extensions: { code: 'RATE_LIMITED', retryAfterMs: expect.any(Number) } },
      { extensions: { code: 'RATE_LIMITED' } },
    ])
    for (const viewer of viewers) await viewer.close()
  })

  test('count the query cost of one subject, over HTTP and over its sockets', async () => {
    const [token, other] = ['curious', 'modest'].map((name) =>
      command('create', '--name', name, '--role', 'viewer').stdout.trim(),
    )
    // 17,000 of 30,000 per minute.
    const query = '{ deployments(first: 85) { edges { node { events(first: 100) { cursor text } } } } }'
    expect(codes(await server.request(query, {}, bearer(token!)))).toBeUndefined()
    const refused = await post(JSON.stringify({ query }), bearer(token!))
    expect(refused.status).toBe(429)
    expect(Number(refused.headers.get('retry-after'))).toBeGreaterThan(0)
    expect(await refused.json()).toMatchObject({
      errors: [{ extensions: { code: 'RATE_LIMITED', retryAfterMs: expect.any(Number) } }],
    })
    const viewer = new Viewer(server.socketUrl, token)
    await expect(viewer.execute(query, {})).rejects.toMatchObject([{ extensions: { code: 'RATE_LIMITED' } }])
    await viewer.close()
    expect(codes(await server.request(query, {}, bearer(other!)))).toBeUndefined()
  })

  test('batches are refused', async () => {
    const answer = await post('[{"query":"{ me { name } }"},{"query":"{ me { name } }"}]', bearer(admin))
    expect(answer.status).toBe(400)
  })

  test('failed authentications from one address are limited', async () => {
    const other = await TestServer.start({ env: { ACCESS: 'required' } })
    const guess = () =>
      fetch(`${other.url}/graphql`, { method: 'POST', headers: bearer(`shipcast_${'B'.repeat(43)}`) })
    const statuses: number[] = []
    for (let i = 0; i < 40; i++) statuses.push((await guess()).status)
    expect(statuses.slice(0, 30)).toEqual(Array(30).fill(401))
    expect(statuses.slice(30)).toEqual(Array(10).fill(429))
    expect(Number((await guess()).headers.get('retry-after'))).toBeGreaterThan(0)
    // A valid token at the same address is not affected.
    const env = { PATH: process.env.PATH, DATA_DIR: other.dataDir }
    const args = ['dist/cli/token.js', 'create', '--name', 'neighbor', '--role', 'viewer']
    const token = spawnSync(process.execPath, args, { env, encoding: 'utf8' }).stdout.trim()
    expect((await other.request('{ me { name } }', {}, bearer(token))).data).toEqual({
      me: { name: 'neighbor' },
    })
    await other.stop()
    await other.removeData()
  })
})

describe('callbacks of a sign-in that was never started', () => {
  let open: TestServer

  beforeAll(async () => {
    open = await TestServer.start({
      env: {
        // Never contacted: no sign-in matches.
        OIDC_ISSUER: 'http://127.0.0.1:1',
        OIDC_CLIENT_ID: 'shipcast',
        OIDC_CLIENT_SECRET: 'hunter2',
        ACCESS_ROLES: 'staff=admin',
      },
    })
  })

  afterAll(async () => {
    await open.stop()
    await open.removeData()
  })

  test('do not fill the audit log, which cannot be shortened', async () => {
    const statuses: number[] = []
    for (const provider of ['oidc', 'github', 'x'.repeat(100)]) {
      for (let i = 0; i < 40; i++) {
        const url = `${open.url}/auth/${provider}/callback?state=${i}&code=${i}`
        statuses.push((await fetch(url, { redirect: 'manual' })).status)
      }
    }
    const database = await Database.open({ dataDir: open.dataDir })
    const entries = await database.query('select target from audit_log', [])
    await database.close()
    expect(entries).toEqual(Array(5).fill({ target: 'oidc' }))
    expect(statuses).toEqual([...Array(30).fill(403), ...Array(10).fill(429), ...Array(80).fill(403)])
  })
})

describe('the server', () => {
  test('refuses requests and sockets from pages of other sites, whatever their credentials', async () => {
    const headers = { ...bearer(admin), origin: 'https://evil.example' }
    expect((await post('{"query":"{ me { name } }"}', headers)).status).toBe(403)
    const socket = new WebSocket(server.socketUrl, 'graphql-transport-ws', { headers })
    const [{ message }] = await withTimeout(once(socket, 'error'), 'the socket is refused')
    expect(message).toContain('403')
    const form = await fetch(`${server.url}/graphql`, {
      method: 'POST',
      headers: { ...bearer(admin), 'content-type': 'text/plain' },
      body: '{"query":"mutation { cancelDeployment(id: \\"x\\") { id } }"}',
    })
    expect(form.status).toBe(400)
  })

  test('sends security headers; only the playground may use inline styles', async () => {
    const page = await fetch(server.url)
    expect(Object.fromEntries(page.headers)).toMatchObject({
      'content-security-policy': expect.stringMatching(
        /^default-src 'self';.*style-src 'self';.*frame-ancestors 'none'$/,
      ),
      'x-content-type-options': 'nosniff',
      'referrer-policy': 'no-referrer',
      'cross-origin-opener-policy': 'same-origin',
      'cross-origin-resource-policy': 'same-origin',
    })
    // Not over http: browsers would remember it for a year.
    expect(page.headers.has('strict-transport-security')).toBe(false)
    const playground = await fetch(`${server.url}/graphiql`)
    expect(playground.headers.get('content-security-policy')).toContain("style-src 'self' 'unsafe-inline';")
  })

  test('ends no session without authentication', async () => {
    const answer = await fetch(`${server.url}/auth/sign-out`, { method: 'POST' })
    expect([answer.status, answer.headers.get('www-authenticate')]).toEqual([401, 'Bearer'])
    expect(await answer.text()).toContain('Authentication required')
  })

  test('refuses large headers before it reads anything else', async () => {
    const answer = await post('{"query":"{ me { name } }"}', bearer('x'.repeat(20_000)))
    expect(answer.status).toBe(431)
  })

  test('serves clones to one token while another one has unfinished clones of the same repository', async () => {
    const { data } = await server.request<DeployResult>(
      DEPLOY_MUTATION,
      { input: deployInput({ org: 'globex', repo: 'wanted' }) },
      bearer(admin),
    )
    const viewer = new Viewer(server.socketUrl, admin)
    viewer.follow({ deploymentId: data.deploy.id })
    await viewer.waitForEnd(data.deploy.id)
    await viewer.close()
    const greedy = command('create', '--name', 'greedy', '--role', 'viewer').stdout.trim()
    const url = `${server.url}/git/globex/wanted.git`
    const refused = Promise.withResolvers<number | undefined>()
    const posts = Array.from({ length: 41 }, () => {
      const headers = { ...bearer(greedy), 'content-length': '1000' }
      const request = httpRequest(`${url}/git-upload-pack`, { method: 'POST', headers, agent: false })
      request.on('error', () => {}) // destroyed below
      request.on('response', (answer) => refused.resolve(answer.statusCode))
      request.write('0')
      return request
    })
    expect(await refused.promise).toBe(503)
    const refs = await fetch(`${url}/info/refs?service=git-upload-pack`, { headers: bearer(admin) })
    expect([refs.status, await refs.text()]).toEqual([200, expect.stringContaining('git-upload-pack')])
    for (const each of posts) each.destroy()
  })

  test('serves no repository of another organization, whatever the path of the clone URL', async () => {
    const { data } = await server.request<DeployResult>(
      DEPLOY_MUTATION,
      { input: deployInput({ org: 'globex', repo: 'secret' }) },
      bearer(admin),
    )
    const viewer = new Viewer(server.socketUrl, admin)
    viewer.follow({ deploymentId: data.deploy.id })
    await viewer.waitForEnd(data.deploy.id)
    await viewer.close()
    const allowed = new URL(`${server.url}/git/globex/secret.git`)
    allowed.username = 'git'
    allowed.password = admin
    expect(await git('/', 'ls-remote', allowed.href)).toContain('refs/heads/main')
    for (const path of [
      '/git/globex/secret.git/info/refs?service=git-upload-pack',
      '/git/GLOBEX/secret.git/info/refs?service=git-upload-pack',
      '/git/acme/../globex/secret.git/info/refs?service=git-upload-pack',
      '/git/acme/%2e%2e/globex/secret.git/HEAD',
      '/git/acme%2f..%2fglobex/secret.git/HEAD',
      '/git/acme/..%2f..%2fglobex%2fsecret.git/HEAD',
      '/git//globex/secret.git/HEAD',
      '/git/./globex/secret.git/HEAD',
      '/GIT/globex/secret.git/HEAD',
      '/%67it/globex/secret.git/HEAD',
      '/git/globex%00/secret.git/HEAD',
      '/git/acme;globex/secret.git/HEAD',
      '/git/globex/secret.git/objects/info/packs',
      '/git/acme\\..\\globex/secret.git/HEAD',
    ]) {
      expect([path, String(await statusOf(path, deployer))]).toEqual([
        path,
        expect.stringMatching(/^(400|404)$/),
      ])
    }
  })
})

/** Sends the path unchanged, which `fetch` would normalize. */
function statusOf(path: string, token: string): Promise<number> {
  return new Promise((resolve, reject) => {
    const sent = httpRequest(
      { host: '127.0.0.1', port: server.port, path, headers: bearer(token) },
      (response) => {
        response.resume()
        resolve(response.statusCode ?? 0)
      },
    )
    sent.on('error', reject)
    sent.end()
  })
}

async function hashOf(token: string): Promise<string> {
  const { createHash } = await import('node:crypto')
  return `Bearer shipcast_${createHash('sha256').update(token).digest('base64url')}`
}

function jwt(...parts: object[]): string {
  return parts.map((part) => Buffer.from(JSON.stringify(part)).toString('base64url')).join('.')
}

/** Every row of every table, as text. */
async function wholeDatabase(): Promise<string> {
  const database = await Database.open({ dataDir: server.dataDir })
  try {
    const tables = await database.query<{ name: string }>(
      `select tablename as name from pg_tables where schemaname = 'public'`,
      [],
    )
    const rows = tables.map(({ name }) => database.query(`select t::text as row from "${name}" t`, []))
    return JSON.stringify(await Promise.all(rows))
  } finally {
    await database.close()
  }
}
