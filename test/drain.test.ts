import { once } from 'node:events'
import { afterAll, beforeAll, expect, test } from '@jest/globals'
import { WebSocket } from 'ws'
import { createDataFolder, type DataFolder } from './support/data-folder.ts'
import { DEPLOY_MUTATION, type DeployResult, deployInput } from './support/inputs.ts'
import { withTimeout } from './support/processes.ts'
import { createTestDatabase, type TestDatabase } from './support/test-database.ts'
import { TestServer } from './support/test-server.ts'
import { type ReceivedEvent, Viewer } from './support/viewer.ts'

/** Batches have at least fifty sockets, so these close in two batches, half of DRAIN_MS apart. */
const VIEWERS = 80
const DRAIN_MS = 20_000

let database: TestDatabase
let folder: DataFolder
let leaving: TestServer
let staying: TestServer

beforeAll(async () => {
  database = await createTestDatabase()
  folder = await createDataFolder()
  const env = { DATABASE_URL: database.url, DRAIN_MS: String(DRAIN_MS) }
  leaving = await TestServer.start({ dataDir: folder.path, env })
  staying = await TestServer.start({ dataDir: folder.path, env })
})

afterAll(async () => {
  await Promise.all([leaving.stop(), staying.stop()])
  await database.drop()
  await folder.remove()
})

async function deploy(): Promise<string> {
  const { data, errors } = await staying.request<DeployResult>(DEPLOY_MUTATION, { input: deployInput() })
  if (errors) throw new Error(JSON.stringify(errors))
  return data.deploy.id
}

async function connect(url: string, after?: string): Promise<Viewer> {
  const viewer = new Viewer(url)
  const { cursor } = await viewer.connected()
  viewer.follow({ after: after ?? cursor })
  return viewer
}

const sequences = (events: readonly ReceivedEvent[]) => events.map(({ sequence }) => sequence)

test('a node that shuts down refuses new sockets, closes its sockets in batches, and serves the remaining ones', async () => {
  const viewers: Viewer[] = []
  for (let i = 0; i < VIEWERS; i++) viewers.push(await connect(leaving.socketUrl))
  const first = await deploy()
  for (const viewer of viewers) await viewer.waitForEnd(first)

  const stopped = leaving.stop()
  await viewers[0]!.waitUntil(() => viewers[0]!.closeCode !== undefined)
  expect((await fetch(`${leaving.url}/health/ready`)).status).toBe(503)
  const lateSocket = new WebSocket(leaving.socketUrl, 'graphql-transport-ws')
  const [error] = (await withTimeout(once(lateSocket, 'error'), 'the late socket is refused')) as [Error]
  expect(error.message).toContain('503')

  const half = VIEWERS / 2
  for (const viewer of viewers.slice(0, half)) await viewer.waitUntil(() => viewer.closeCode !== undefined)
  const second = await deploy()
  for (const viewer of viewers.slice(half)) {
    expect(sequences(await viewer.waitForEnd(second))).toEqual([1, 2, 3, 4, 5])
    expect(viewer.closeCode).toBeUndefined()
  }

  for (const viewer of viewers) await viewer.waitUntil(() => viewer.closeCode !== undefined)
  expect(new Set(viewers.map(({ closeCode }) => closeCode))).toEqual(new Set([1012]))
  await stopped

  const third = await deploy()
  const resumed = await Promise.all(
    viewers.map(({ events }) => connect(staying.socketUrl, events.at(-1)?.cursor ?? '')),
  )
  for (const [i, viewer] of resumed.entries()) {
    await viewer.waitForEnd(third)
    const all = [...viewers[i]!.events, ...viewer.events]
    for (const id of [first, second, third]) {
      expect(sequences(all.filter(({ deploymentId }) => deploymentId === id))).toEqual([1, 2, 3, 4, 5])
    }
    await viewer.close()
  }
})
