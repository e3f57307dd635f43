import { afterAll, beforeAll, expect, test } from '@jest/globals'
import { Cluster } from './support/cluster.ts'
import { deployInput } from './support/inputs.ts'
import { createTestDatabase, type TestDatabase } from './support/test-database.ts'
import { Viewer } from './support/viewer.ts'

const DEPLOYMENTS = 8

let database: TestDatabase
const clusters: Cluster[] = []

beforeAll(async () => {
  database = await createTestDatabase()
  await database.database.query('create schema aa; create schema bb')
  const url = (_: string, { options }: Record<string, string>) =>
    `${database.url}&options=${encodeURIComponent(options ?? '')}`
  for (const schema of ['aa', 'bb']) {
    const parameters = { options: `-c search_path=${schema}` }
    clusters.push(await Cluster.start({ url }, { size: 2, parameters }))
  }
})

afterAll(async () => {
  await Promise.all(clusters.map((cluster) => cluster.stop()))
  await database.drop()
})

test('two installations in two schemas of one database do not affect each other', async () => {
  const viewers = clusters.map((cluster) => cluster.nodes.map((node) => new Viewer(node.socketUrl)))
  for (const viewer of viewers.flat()) {
    await viewer.connected()
    viewer.follow()
  }
  const single = await clusters[0]!.deploy(
    { ...deployInput(), idempotencyKey: crypto.randomUUID() },
    0,
    20_000,
  )
  for (const viewer of viewers[0]!) await viewer.waitForEnd(single)
  for (const node of clusters[1]!.nodes) {
    const metrics = await (await fetch(`${node.url}/metrics`)).text()
    expect(metrics).toMatch(/^shipcast_gap_fills_total 0$/m)
  }

  const ids = await Promise.all(
    clusters.map((cluster) =>
      Promise.all(
        Array.from({ length: DEPLOYMENTS }, (_, i) =>
          cluster.deploy({ ...deployInput(), idempotencyKey: crypto.randomUUID() }, i, 20_000),
        ),
      ),
    ),
  )
  ids[0]!.push(single)
  for (const [i, own] of ids.entries()) {
    for (const viewer of viewers[i]!) {
      for (const id of own) await viewer.waitForEnd(id)
      expect(new Set(viewer.events.map((event) => event.deploymentId))).toEqual(new Set(own))
      expect(viewer.closeCode).toBeUndefined()
    }
  }
  await Promise.all(viewers.flat().map((viewer) => viewer.close()))
  for (const node of clusters.flatMap((cluster) => cluster.nodes)) {
    expect(node.log).not.toMatch(/Database history diverged|Poll found events/)
    const metrics = await (await fetch(`${node.url}/metrics`)).text()
    expect(metrics).toMatch(/^shipcast_lost_hints_total 0$/m)
  }
})
