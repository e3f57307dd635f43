import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import { WebSocket } from 'ws'
import { CredentialStore } from '../src/auth/credentials/credential-store.ts'
import { includesOrg, type Organizations, rightsOf } from '../src/auth/rights.ts'
import type { Grant } from '../src/config/grants.ts'
import { Database } from '../src/database/database.ts'
import { Cluster } from './support/cluster.ts'
import { DEPLOY_MUTATION, type DeployResult, deployInput } from './support/inputs.ts'
import { waitUntil, withTimeout } from './support/processes.ts'
import { RestartablePostgres } from './support/restartable-postgres.ts'
import { Viewer } from './support/viewer.ts'

const VIEWERS = Number(process.env.VIEWERS ?? 120)
const ORGS = Array.from({ length: 20 }, (_, i) => `org-${i}`)

let postgres: RestartablePostgres
let cluster: Cluster
let database: Database
let credentials: CredentialStore
let admin: string
const viewers: Viewer[] = []

beforeAll(async () => {
  postgres = await RestartablePostgres.start()
  cluster = await Cluster.start(postgres, {
    env: { ACCESS: 'required', MUTATIONS_PER_MINUTE: '10000', DEPLOY_CONCURRENCY: '4' },
  })
  database = await Database.open({ url: postgres.url(), dataDir: '' })
  credentials = new CredentialStore(database)
  admin = await token('admin', { role: 'admin', orgs: 'all' })
})

afterAll(async () => {
  await Promise.all(viewers.map((viewer) => viewer.close()))
  await database.close()
  await cluster.stop()
  await postgres.remove()
})

async function token(name: string, grant: Grant, lifetimeMs = 3_600_000): Promise<string> {
  const options = { kind: 'token', subjectId: `service:${name}`, name, grants: [grant], lifetimeMs } as const
  return (await credentials.create(options)).secret
}

/** The operator's command. */
async function command(...args: string[]): Promise<string> {
  const { stdout } = await promisify(execFile)(process.execPath, ['dist/cli/token.js', ...args], {
    env: { ...process.env, DATABASE_URL: postgres.url() },
  })
  return stdout.trim()
}

function connect(secret: string, node: number): Viewer {
  const viewer = new Viewer(cluster.node(node).socketUrl, secret)
  viewers.push(viewer)
  return viewer
}

async function deploy(org: string, node: number): Promise<string> {
  const headers = { authorization: `Bearer ${admin}` }
  const { data, errors } = await cluster
    .node(node)
    .request<DeployResult>(DEPLOY_MUTATION, { input: deployInput({ org }) }, headers)
  if (errors) throw new Error(JSON.stringify(errors))
  return data.deploy.id
}

/** The sum over all nodes. */
async function metric(name: string): Promise<number> {
  const values = cluster.nodes.map(async (node) => {
    const headers = { authorization: `Bearer ${admin}` }
    const text = await (await fetch(`${node.url}/metrics`, { headers })).text()
    return Number(new RegExp(`^shipcast_${name} (\\S+)$`, 'm').exec(text)?.[1])
  })
  return (await Promise.all(values)).reduce((sum, value) => sum + value, 0)
}

async function waitForSubscriptions(count: number): Promise<void> {
  let current: number | undefined
  await waitUntil(
    async () => {
      current = await metric('members')
      return current === count
    },
    () => `${count} subscriptions are open; the metric is ${current}`,
  )
}

test('viewers with different rights on the same documents each receive exactly the events that they may see', async () => {
  const documents = ['text', 'text at'].map(
    (fields) =>
      `subscription { deploymentStatus { deploymentId sequence cursor status deployment { org } ${fields} } }`,
  )
  // Some differ only in order or case.
  const scopes: Organizations[] = [
    'all',
    ['org-1'],
    ['ORG-1'],
    ['org-2', 'org-3'],
    ['org-3', 'org-2'],
    ['nowhere'],
    ...Array.from({ length: 14 }, (_, i) => ORGS.filter((_, j) => (i * 7 + j * j * 3) % 5 < 2)),
  ]
  const secrets = await Promise.all(
    scopes.map((orgs, i) => token(`scope-${i}`, { role: i % 2 ? 'viewer' : 'deployer', orgs })),
  )
  const watching = Array.from({ length: VIEWERS }, (_, i) => {
    const scope = i % scopes.length
    const viewer = connect(secrets[scope]!, 0)
    const document = Math.floor(i / scopes.length) % documents.length
    viewer.subscribe({ query: documents[document]! })
    return { viewer, document, orgs: rightsOf([{ role: 'viewer', orgs: scopes[scope]! }]).sees }
  })
  await Promise.all(watching.map(({ viewer }) => viewer.connected()))
  await waitForSubscriptions(VIEWERS)
  const before = await metric('executions_total')

  const all = connect(admin, 1)
  await all.connected()
  all.subscribe({ query: documents[0]! })
  await waitForSubscriptions(VIEWERS + 1)
  const ids = await Promise.all(ORGS.map((org, i) => deploy(org, i)))
  for (const id of ids) await all.waitForEnd(id)
  const orgOf = (event: (typeof all.events)[number]) => (event.deployment as unknown as { org: string }).org

  for (const { viewer, orgs } of watching) {
    const visible = all.events.filter((event) => includesOrg(orgs, orgOf(event)))
    await viewer.waitUntil(() => viewer.events.length >= visible.length)
    expect(viewer.events.map(({ cursor }) => cursor)).toEqual(visible.map(({ cursor }) => cursor))
  }
  // Per event: one for each pair of document and scope that may see it, and one for
  // the admin on another node.
  const groups = new Map(watching.map(({ document, orgs }) => [JSON.stringify([document, orgs]), orgs]))
  const expected = all.events.map(
    (event) => [...groups.values()].filter((orgs) => includesOrg(orgs, orgOf(event))).length + 1,
  )
  expect((await metric('executions_total')) - before).toBe(expected.reduce((sum, count) => sum + count, 0))
  await Promise.all(watching.map(({ viewer }) => viewer.close()))
  await all.close()
})

describe('on open sockets of every node', () => {
  test('a revoked token closes them with 4401', async () => {
    const secret = await command('create', '--name', 'revoked', '--role', 'viewer', '--org', 'acme')
    const open = await following(secret, [0, 1, 2])
    const id = await deploy('acme', 0)
    for (const viewer of open) await viewer.waitForEnd(id)
    await command('revoke', '--name', 'revoked')
    for (const viewer of open) await viewer.waitUntil(() => viewer.closeCode !== undefined)
    expect(open.map(({ closeCode }) => closeCode)).toEqual([4401, 4401, 4401])
    const again = connect(secret, 1)
    await again.waitUntil(() => again.closeCode !== undefined)
    expect(again.closeCode).toBe(4401)
  })

  test('an expired token closes them with 4401', async () => {
    const secret = await command('create', '--name', 'short', '--role', 'viewer', '--expires', '3s')
    const open = await following(secret, [0, 1, 2])
    for (const viewer of open) await viewer.waitUntil(() => viewer.closeCode !== undefined)
    expect(open.map(({ closeCode }) => closeCode)).toEqual([4401, 4401, 4401])
  })

  test('a changed role closes them with 4403; a new socket resumes from the cursor, with the new rights', async () => {
    const secret = await command('create', '--name', 'moved', '--role', 'deployer', '--org', 'acme')
    const open = await following(secret, [0, 1, 2])
    const first = await deploy('acme', 0)
    for (const viewer of open) await viewer.waitForEnd(first)
    await command('change', '--name', 'moved', '--role', 'viewer', '--org', 'globex')
    for (const viewer of open) await viewer.waitUntil(() => viewer.closeCode !== undefined)
    expect(open.map(({ closeCode }) => closeCode)).toEqual([4403, 4403, 4403])

    const [hidden, visible] = [await deploy('acme', 1), await deploy('globex', 2)]
    for (const [node, viewer] of open.entries()) {
      const after = viewer.events.at(-1)?.cursor
      const again = connect(secret, node)
      await again.connected()
      again.follow({ ...(after !== undefined && { after }) })
      expect((await again.waitForEnd(visible)).map(({ sequence }) => sequence)).toEqual([1, 2, 3, 4, 5])
      expect(again.eventsOf(hidden)).toEqual([])
      await again.close()
    }
  })

  test('a revocation without a notification is found by the periodic check', async () => {
    const secret = await token('unannounced', { role: 'viewer', orgs: ['acme'] })
    const [viewer] = await following(secret, [2])
    if (!viewer) throw new Error('No viewer follows.')
    await credentials.revokeTokens('unannounced')
    await viewer.waitUntil(() => viewer.closeCode !== undefined)
    expect(viewer.closeCode).toBe(4401)
  })

  test('a ping renews the token, so the subscription outlives the first token', async () => {
    const [first, second] = [
      await command('create', '--name', 'renewed', '--role', 'viewer', '--org', 'acme', '--expires', '4s'),
      await command('create', '--name', 'renewed', '--role', 'viewer', '--org', 'acme'),
    ]
    const [socket, other] = [await RawSocket.open(0, first), connect(first, 1)]
    socket.send({
      id: '1',
      type: 'subscribe',
      payload: { query: 'subscription { deploymentStatus { sequence } }' },
    })
    socket.send({ type: 'ping', payload: { authorization: `Bearer ${second}` } })
    const pong = await socket.next(({ type }) => type === 'pong')
    expect(Date.parse(String(pong.payload?.expiresAt))).toBeGreaterThan(Date.now() + 3_600_000)
    // The socket that was not renewed closes with the first token.
    await other.waitUntil(() => other.closeCode === 4401)
    await deploy('acme', 2)
    await socket.next(({ payload }) => JSON.stringify(payload ?? {}).includes('"sequence":5'))

    socket.send({
      type: 'ping',
      payload: { token: await token('another-subject', { role: 'viewer', orgs: ['acme'] }) },
    })
    expect(await socket.closed()).toBe(4403)
    const wrong = await RawSocket.open(0, second)
    wrong.send({ type: 'ping', payload: { token: 'shipcast_wrong' } })
    expect(await wrong.closed()).toBe(4401)
  })

  async function following(secret: string, nodes: number[]): Promise<Viewer[]> {
    const before = await metric('members')
    const open = nodes.map((node) => connect(secret, node))
    for (const viewer of open) {
      await viewer.connected()
      viewer.follow()
    }
    await waitForSubscriptions(before + open.length)
    return open
  }
})

interface Message {
  type: string
  payload?: Record<string, unknown>
}

/** graphql-transport-ws by hand, for messages that its client does not send. */
class RawSocket {
  private readonly messages: Message[] = []

  private constructor(private readonly socket: WebSocket) {
    socket.on('message', (data) => this.messages.push(JSON.parse(String(data))))
  }

  static async open(node: number, token: string): Promise<RawSocket> {
    const raw = new RawSocket(new WebSocket(cluster.node(node).socketUrl, 'graphql-transport-ws'))
    await withTimeout(once(raw.socket, 'open'), 'the socket opens')
    raw.send({ type: 'connection_init', payload: { token } })
    await raw.next(({ type }) => type === 'connection_ack')
    return raw
  }

  send(message: object): void {
    this.socket.send(JSON.stringify(message))
  }

  async next(is: (message: Message) => boolean): Promise<Message> {
    await waitUntil(
      () => this.messages.some(is),
      () => `a message; the last ones are ${JSON.stringify(this.messages.slice(-5))}`,
    )
    return this.messages.find(is) as Message
  }

  async closed(): Promise<number> {
    const [code] = await withTimeout(once(this.socket, 'close'), 'the socket closes')
    return Number(code)
  }
}
