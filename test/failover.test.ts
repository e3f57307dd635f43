import { afterEach, beforeEach, expect, test } from '@jest/globals'
import { Cluster } from './support/cluster.ts'
import { deployInput } from './support/inputs.ts'
import { MAX_WAIT_MS, waitUntil } from './support/processes.ts'
import { ReplicatedPostgres } from './support/replicated-postgres.ts'
import type { TestServer } from './support/test-server.ts'
import { type ReceivedEvent, Viewer } from './support/viewer.ts'

const FIND = 'query ($id: ID!) { deployment(id: $id) { status repositoryUrl } }'

let postgres: ReplicatedPostgres
let cluster: Cluster
let viewers: Viewer[]

beforeEach(() => {
  viewers = []
})

afterEach(async () => {
  await Promise.all(viewers.map((viewer) => viewer.close()))
  await cluster.stop()
  await postgres.remove()
})

async function start(options: { isSynchronous: boolean }): Promise<void> {
  postgres = await ReplicatedPostgres.start(options)
  cluster = await Cluster.start(postgres, { size: 2, env: { LEASE_MS: '1500' } })
}

test('failover without loss: sockets stay open, and every event arrives once and in order', async () => {
  await start({ isSynchronous: true })
  const watching = await Promise.all(cluster.nodes.map((node) => follow(node)))
  const posting = keepPosting()
  await waitUntil(() => posting.ids.length > 5, 'some deployments are accepted')
  await failOver()
  const before = posting.ids.length
  await waitUntil(() => posting.ids.length > before + 5, 'more deployments are accepted', MAX_WAIT_MS)
  await posting.stop()

  for (const viewer of watching) {
    for (const id of posting.ids) expect((await viewer.waitForEnd(id)).at(-1)?.status).toBe('SUCCEEDED')
    expectContiguous(viewer.events)
    expect(viewer.closeCode).toBeUndefined()
  }
  for (const node of cluster.nodes) {
    await waitUntil(async () => (await readiness(node)) === 200, 'the node is ready again', MAX_WAIT_MS)
    expect(node.log).not.toContain('Database history diverged')
  }
})

test('failover that loses commits: cursors of lost events are unknown, and everything else continues', async () => {
  await start({ isSynchronous: false })
  const watching = await Promise.all(cluster.nodes.map((node) => follow(node)))
  const kept = await cluster.deploy(keyed(), 0, MAX_WAIT_MS)
  for (const viewer of watching) await viewer.waitForEnd(kept)
  await postgres.disconnectStandby()
  const lost = await Promise.all([0, 1, 2].map((i) => cluster.deploy(keyed(), i, MAX_WAIT_MS)))
  for (const viewer of watching) for (const id of lost) await viewer.waitForEnd(id)
  await failOver()

  const cursors = watching.map((viewer) => viewer.events.at(-1)?.cursor ?? '')
  for (const viewer of watching) await viewer.waitUntil(() => viewer.closeCode === 1012)
  const ids = [keyed(), keyed(), keyed()].map((request, i) => cluster.deploy(request, i, MAX_WAIT_MS))
  const after = await Promise.all(ids)
  for (const [i, node] of cluster.nodes.entries()) {
    const resumed = await follow(node, cursors[i])
    await resumed.waitUntil(() => resumed.errors.length > 0)
    expect(resumed.errors).toMatchObject([{ extensions: { code: 'CURSOR_UNKNOWN' } }])
    expect(resumed.events).toEqual([])

    const viewer = await follow(node, `${resumed.ack?.cursor.slice(0, 4)}${'0'.repeat(12)}`)
    for (const id of [kept, ...after]) {
      const events = await viewer.waitForEnd(id)
      expect(events.map(({ sequence }) => sequence)).toEqual(events.map((_, n) => n + 1))
      expect(events.at(-1)?.status).toBe('SUCCEEDED')
    }
    expectContiguous(viewer.events)
    for (const id of lost) expect((await node.request(FIND, { id })).data).toEqual({ deployment: null })
  }
  const names = viewers.slice(-4).map((viewer) => viewer.ack?.cursor.slice(0, 4))
  expect(new Set(names).size).toBe(1)
})

/** The primary fails; its address leads to a read-only server, which is then promoted. */
async function failOver(): Promise<void> {
  await postgres.killPrimary()
  for (const node of cluster.nodes) {
    await waitUntil(async () => (await readiness(node)) === 503, 'the node is not ready')
  }
  await postgres.promoteStandby()
}

async function follow(node: TestServer, after?: string): Promise<Viewer> {
  const viewer = new Viewer(node.socketUrl)
  viewers.push(viewer)
  await viewer.connected()
  viewer.follow(after === undefined ? {} : { after })
  return viewer
}

/** Deploys one after another on alternating nodes; each request is repeated until it is accepted. */
function keepPosting(): { ids: string[]; stop(): Promise<void> } {
  const ids: string[] = []
  const ending = new AbortController()
  const posting = (async () => {
    while (!ending.signal.aborted) ids.push(await cluster.deploy(keyed(), ids.length, 5_000))
  })()
  return {
    ids,
    stop: () => {
      ending.abort()
      return posting
    },
  }
}

const keyed = () => deployInput({ idempotencyKey: crypto.randomUUID() })

const readiness = async (node: TestServer) => (await fetch(`${node.url}/health/ready`)).status

function expectContiguous(events: readonly ReceivedEvent[]): void {
  const positions = events.map(({ cursor }) => Number(cursor))
  expect(positions).toEqual(positions.map((_, i) => (positions[0] ?? 0) + i))
}
