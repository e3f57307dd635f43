import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import { WebSocket } from 'ws'
import { DEPLOY_MUTATION, type DeployResult, deployInput } from './support/inputs.ts'
import { withTimeout } from './support/processes.ts'
import { TestServer } from './support/test-server.ts'
import { isFinalEvent, type ReceivedEvent, Viewer } from './support/viewer.ts'

/** For many concurrent deployments, on a busy machine. */
const LOAD_TIMEOUT_MS = 100_000

let server: TestServer
const viewers: Viewer[] = []

beforeAll(async () => {
  server = await TestServer.start({ env: { DEPLOY_CONCURRENCY: '4' } })
})

afterAll(async () => {
  await Promise.all(viewers.map((viewer) => viewer.close()))
  await server.stop()
  await server.removeData()
})

async function connect(): Promise<Viewer> {
  const viewer = new Viewer(server.socketUrl)
  viewers.push(viewer)
  await viewer.connected()
  return viewer
}

async function deploy(headers: Record<string, string> = {}): Promise<string> {
  const { data, errors } = await server.request<DeployResult>(
    DEPLOY_MUTATION,
    { input: deployInput() },
    headers,
  )
  if (errors) throw new Error(JSON.stringify(errors))
  return data.deploy.id
}

const sequences = (events: readonly ReceivedEvent[]) => events.map(({ sequence }) => sequence)
const upTo = (length: number) => Array.from({ length }, (_, i) => i + 1)

describe('a subscription', () => {
  test('with any cursor resumes after it, without gap or repeat', async () => {
    const early = await connect()
    const { cursor: start } = await early.connected()
    early.follow()
    const id = await deploy()
    const all = await early.waitForEnd(id)
    expect(sequences(all)).toEqual(upTo(all.length))

    for (const [seen, cursor] of [start, ...all.map((event) => event.cursor)].entries()) {
      const late = await connect()
      late.follow({ deploymentId: id, after: cursor })
      if (seen < all.length) await late.waitForEnd(id)
      // A cursor is a position in the whole log: after the last event, those of the next
      // deployment would follow.
      expect(late.events).toEqual(all.slice(seen))
      await late.close()
    }
  })

  test('without a cursor, to a finished deployment, delivers its current state', async () => {
    const watcher = await connect()
    watcher.follow()
    const id = await deploy()
    const last = (await watcher.waitForEnd(id)).at(-1)
    const late = await connect()
    late.follow({ deploymentId: id })
    expect(await late.waitForEnd(id)).toEqual([last])
  })

  test('without a cursor delivers active deployments only, in ascending order of cursors', async () => {
    const watcher = await connect()
    watcher.follow()
    const ids = await Promise.all(Array.from({ length: 12 }, () => deploy()))
    const late = await connect()
    late.follow()
    for (const id of ids) await watcher.waitForEnd(id)
    const marker = await deploy()
    await late.waitForEnd(marker)
    const cursors = late.events.map((event) => event.cursor)
    expect(cursors).toEqual(cursors.toSorted())
    expect(new Set(cursors).size).toBe(cursors.length)
    for (const id of ids) {
      const seen = sequences(late.eventsOf(id))
      if (seen.length > 0) expect(seen).toEqual(upTo(watcher.eventsOf(id).length).slice(-seen.length))
    }
  })

  test('with an unknown cursor fails with CURSOR_UNKNOWN, to an unknown deployment with NOT_FOUND', async () => {
    const viewer = await connect()
    const { cursor } = await viewer.connected()
    for (const after of ['nonsense', '', `9${cursor.slice(1)}`, `${cursor.slice(0, 4)}${'9'.repeat(12)}`]) {
      const before = viewer.errors.length
      viewer.follow({ after })
      await viewer.waitUntil(() => viewer.errors.length > before)
      expect(viewer.errors.at(-1)).toMatchObject({ extensions: { code: 'CURSOR_UNKNOWN' } })
    }
    for (const deploymentId of [crypto.randomUUID(), 'nonsense', '']) {
      const before = viewer.errors.length
      viewer.follow({ deploymentId })
      await viewer.waitUntil(() => viewer.errors.length > before)
      expect(viewer.errors.at(-1)).toMatchObject({ extensions: { code: 'NOT_FOUND' } })
    }
  })

  test('to a deployment id in upper case delivers the same events', async () => {
    const viewer = await connect()
    const { cursor } = await viewer.connected()
    const id = await deploy()
    viewer.follow({ deploymentId: id.toUpperCase(), after: cursor })
    const events = await viewer.waitForEnd(id)
    expect(sequences(events)).toEqual(upTo(events.length))
  })
})

describe('the sender of a mutation', () => {
  test('over HTTP, with its connection id, does not receive its own event 1, but all later ones; others receive all', async () => {
    const sender = await connect()
    const other = await connect()
    sender.follow()
    other.follow()
    const { connectionId } = await sender.connected()
    const id = await deploy({ 'x-connection-id': connectionId })
    const seenByOther = await other.waitForEnd(id)
    await sender.waitForEnd(id)
    expect(sequences(seenByOther)).toEqual(upTo(seenByOther.length))
    expect(sequences(sender.eventsOf(id))).toEqual(upTo(seenByOther.length).slice(1))
  })

  test('over its own socket does not receive its own event 1 either', async () => {
    const sender = await connect()
    sender.follow()
    const answer = (await sender.execute(DEPLOY_MUTATION, {
      input: deployInput(),
    })) as unknown as DeployResult
    const events = await sender.waitForEnd(answer.deploy.id)
    expect(sequences(events)[0]).toBe(2)
  })

  test('receives event 1 on another connection that resumes from an earlier cursor', async () => {
    const sender = await connect()
    const { connectionId, cursor } = await sender.connected()
    const id = await deploy({ 'x-connection-id': connectionId })
    const again = await connect()
    again.follow({ after: cursor, deploymentId: id })
    expect(sequences(await again.waitForEnd(id))[0]).toBe(1)
  })
})

test('200 concurrent deployments, 50 viewers that come and go: each receives 1, 2, 3 … to the end', async () => {
  const constant = await connect()
  const { cursor: start } = await constant.connected()
  constant.follow({ after: start })
  const accepted = Promise.all(Array.from({ length: 200 }, () => deploy()))

  // Each leaves and returns three times, with the cursor of the last event that it saw.
  const restless = await Promise.all(
    upTo(50).map(async (number) => {
      const seen: ReceivedEvent[] = []
      for (let visit = 1; ; visit++) {
        const viewer = await connect()
        viewer.follow({ after: seen.at(-1)?.cursor ?? start })
        const leaveAt = visit < 4 ? (number * 7 * visit) % 150 : Number.POSITIVE_INFINITY
        const ids = visit < 4 ? [] : await accepted
        await viewer.waitUntil(
          () => viewer.events.length > leaveAt || (visit === 4 && allEnded(ids, [...seen, ...viewer.events])),
          `visit ${visit} of viewer ${number} has seen enough`,
          LOAD_TIMEOUT_MS,
        )
        // Includes frames that arrive while it closes.
        await viewer.close()
        seen.push(...viewer.events)
        if (visit === 4) return seen
      }
    }),
  )

  const ids = await accepted
  await constant.waitUntil(() => allEnded(ids, constant.events), 'every deployment ends', LOAD_TIMEOUT_MS)
  for (const events of [constant.events, ...restless]) {
    const byDeployment = Map.groupBy(events, (event) => event.deploymentId)
    for (const id of ids) {
      const seen = byDeployment.get(id) ?? []
      expect(sequences(seen)).toEqual(upTo(seen.length))
      expect(isFinalEvent(seen.at(-1))).toBe(true)
    }
    const cursors = events.map((event) => event.cursor)
    expect(cursors).toEqual(cursors.toSorted())
  }
})

function allEnded(ids: readonly string[], events: readonly ReceivedEvent[]): boolean {
  if (ids.length === 0) return false
  const ended = new Set(events.filter(isFinalEvent).map((event) => event.deploymentId))
  return ids.every((id) => ended.has(id))
}

describe('the socket', () => {
  /** Resolves to the close code; rejects if the upgrade is refused. */
  async function closeOf(socket: WebSocket): Promise<number> {
    const closed = new Promise<number>((resolve, reject) => {
      socket.once('close', resolve)
      socket.once('error', reject)
    })
    return withTimeout(closed, 'the socket closes')
  }

  const open = (options = {}, protocols: string[] = ['graphql-transport-ws']) =>
    new WebSocket(server.socketUrl, protocols, options)

  test('refuses a foreign origin and an unknown path', async () => {
    await expect(closeOf(open({ origin: 'https://evil.example' }))).rejects.toThrow('403')
    await expect(closeOf(open({ headers: { host: 'evil.example' } }))).rejects.toThrow('403')
    await expect(closeOf(new WebSocket(`${server.socketUrl}/other`, 'graphql-transport-ws'))).rejects.toThrow(
      '404',
    )
    const own = open({ origin: server.url })
    own.once('open', () => own.close(1000))
    expect(await closeOf(own)).toBe(1000)
  })

  test('closes with 4408 without connection_init, with 4406 without the subprotocol, with 1009 for a huge message', async () => {
    expect(await closeOf(open())).toBe(4408)
    expect(await closeOf(open({}, []))).toBe(4406)
    const huge = open()
    huge.once('open', () =>
      huge.send(`{"type":"connection_init","payload":{"x":"${'x'.repeat(1024 * 1024)}"}}`),
    )
    expect(await closeOf(huge)).toBe(1009)
  })

  test('limits operations, and answers further ones with RATE_LIMITED', async () => {
    const viewer = await connect()
    for (let i = 0; i < 101; i++) viewer.follow()
    await viewer.waitUntil(() => viewer.errors.length > 0)
    expect(viewer.errors).toMatchObject([{ extensions: { code: 'RATE_LIMITED' } }])
  })

  test('answers an invalid document with an error, and stays open', async () => {
    const viewer = await connect()
    await expect(viewer.execute('{ templates { ', {})).rejects.toMatchObject([{ message: /Syntax Error/ }])
    await expect(viewer.execute('{ nope }', {})).rejects.toMatchObject([{ message: /Cannot query field/ }])
    expect(await viewer.execute('{ templates { name } }', {})).toHaveProperty('templates')
  })
})

test('a planned stop closes sockets with 1012, and a viewer resumes from its cursor afterwards', async () => {
  const own = await TestServer.start()
  const before = new Viewer(own.socketUrl)
  const { cursor } = await before.connected()
  before.follow()
  await own.request(DEPLOY_MUTATION, { input: deployInput() })
  await own.stop()
  await before.waitUntil(() => before.closeCode !== undefined)
  expect(before.closeCode).toBe(1012)
  await own.start()
  const after = new Viewer(own.socketUrl)
  const last = before.events.at(-1)
  after.follow({ after: last?.cursor ?? cursor })
  if (!isFinalEvent(last)) await after.waitUntil(() => isFinalEvent(after.events.at(-1)))
  const all = [...before.events, ...after.events]
  expect(sequences(all)).toEqual(upTo(all.length))
  await after.close()
  await own.stop()
  await own.removeData()
})
