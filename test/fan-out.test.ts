import { once } from 'node:events'
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import { WebSocket } from 'ws'
import { DEPLOY_MUTATION, type DeployResult, deployInput } from './support/inputs.ts'
import { waitUntil, withTimeout } from './support/processes.ts'
import { TestServer } from './support/test-server.ts'
import { Viewer } from './support/viewer.ts'

let server: TestServer

beforeAll(async () => {
  server = await TestServer.start()
})

afterAll(async () => {
  await server.stop()
  await server.removeData()
})

async function metric(name: string): Promise<number> {
  const text = await (await fetch(`${server.url}/metrics`)).text()
  const line = text.split('\n').find((each) => each.startsWith(`shipcast_${name} `))
  if (line === undefined) throw new Error(`The server has no metric shipcast_${name}.`)
  return Number(line.split(' ')[1])
}

async function waitForMetric(name: string, value: number): Promise<void> {
  let current: number | undefined
  await waitUntil(
    async () => {
      current = await metric(name)
      return current === value
    },
    () => `shipcast_${name} is ${value}; it is ${current}`,
  )
}

async function deploy(): Promise<string> {
  const { data, errors } = await server.request<DeployResult>(DEPLOY_MUTATION, { input: deployInput() })
  if (errors) throw new Error(JSON.stringify(errors))
  return data.deploy.id
}

/** Resolves once all viewers are subscribed: before, they might receive a snapshot instead of an event. */
async function waitUntilSubscribed(viewers: readonly Viewer[], count = viewers.length): Promise<void> {
  await Promise.all(viewers.map((viewer) => viewer.connected()))
  await waitForMetric('members', count)
}

test('however many viewers, an event is executed once for each distinct query', async () => {
  const queries = [
    'subscription { deploymentStatus { deploymentId sequence cursor status } }',
    'subscription A($after: String) { deploymentStatus(after: $after) { deploymentId sequence cursor status text } }',
    'subscription B($after: String) { deploymentStatus(after: $after) { deploymentId sequence cursor status deployment { sequence } } }',
  ]
  const viewers = Array.from({ length: 60 }, () => new Viewer(server.socketUrl))
  for (const [i, viewer] of viewers.entries()) {
    const { cursor } = await viewer.connected()
    // Cursors differ; the selected fields do not.
    viewer.subscribe({
      query: queries[i % 3]!,
      variables: i % 3 === 0 ? {} : { after: i % 2 ? cursor : null },
    })
  }
  await waitUntilSubscribed(viewers)
  expect(await metric('groups')).toBe(3)
  const before = await metric('executions_total')

  const id = await deploy()
  for (const viewer of viewers) {
    expect((await viewer.waitForEnd(id)).map((event) => event.sequence)).toEqual([1, 2, 3, 4, 5])
  }
  expect((await metric('executions_total')) - before).toBe(5 * 3)
  await Promise.all(viewers.map((viewer) => viewer.close()))
  for (const name of ['sockets', 'members', 'groups']) await waitForMetric(name, 0)
})

test('a subscription cannot select a field that is read from the database', async () => {
  const viewer = new Viewer(server.socketUrl)
  viewer.subscribe({ query: 'subscription { deploymentStatus { deployment { events { sequence } } } }' })
  await viewer.waitUntil(() => viewer.errors.length > 0)
  const fields = [{ path: 'Deployment.events', reason: expect.stringContaining('in a query') }]
  expect(viewer.errors).toMatchObject([{ extensions: { code: 'BAD_USER_INPUT', fields } }])
  await viewer.close()
})

test('a viewer of one deployment does not receive events of others', async () => {
  const viewer = new Viewer(server.socketUrl)
  const first = await deploy()
  viewer.follow({ deploymentId: first })
  await viewer.waitForEnd(first)
  const other = new Viewer(server.socketUrl)
  other.follow()
  await waitUntilSubscribed([viewer, other])
  await other.waitForEnd(await deploy())
  expect(new Set(viewer.events.map((event) => event.deploymentId))).toEqual(new Set([first]))
  await Promise.all([viewer.close(), other.close()])
  await waitForMetric('groups', 0)
})

describe('a raw client', () => {
  interface Message {
    id?: string
    type: string
    payload?: { data?: { deploymentStatus: { deploymentId: string; sequence: number; status: string } } }
  }

  async function open(): Promise<{
    socket: WebSocket
    messages: Message[]
    has: (found: (m: Message) => boolean) => Promise<void>
  }> {
    const socket = new WebSocket(server.socketUrl, 'graphql-transport-ws')
    const messages: Message[] = []
    socket.on('message', (data) => messages.push(JSON.parse(String(data))))
    await withTimeout(once(socket, 'open'), 'the socket opens')
    const has = (found: (message: Message) => boolean) =>
      waitUntil(
        () => messages.some(found),
        () => `a message; the last ones are ${JSON.stringify(messages.slice(-5))}`,
      )
    socket.send('{"type":"connection_init"}')
    await has(({ type }) => type === 'connection_ack')
    return { socket, messages, has }
  }

  const subscribe = (id: string) =>
    JSON.stringify({
      id,
      type: 'subscribe',
      payload: { query: 'subscription { deploymentStatus { deploymentId sequence status } }' },
    })

  test('that completes an operation and starts another with the same id at once receives the new one', async () => {
    const { socket, messages, has } = await open()
    for (let i = 0; i < 100; i++) {
      socket.send(subscribe('same'))
      socket.send('{"id":"same","type":"complete"}')
    }
    socket.send(subscribe('same'))
    await waitForMetric('members', 1)
    const id = await deploy()
    await has(
      ({ payload }) =>
        payload?.data?.deploymentStatus.deploymentId === id &&
        payload.data?.deploymentStatus.status === 'SUCCEEDED',
    )
    expect(messages.filter(({ type }) => type === 'complete' || type === 'error')).toEqual([])
    const own = messages.filter(({ payload }) => payload?.data?.deploymentStatus.deploymentId === id)
    expect(own.map(({ payload }) => payload?.data?.deploymentStatus.sequence)).toEqual([1, 2, 3, 4, 5])
    socket.terminate()
    await waitForMetric('members', 0)
  })

  test('receives nothing for an operation after its complete', async () => {
    const { socket, messages, has } = await open()
    socket.send(subscribe('ended'))
    socket.send(subscribe('kept'))
    await waitForMetric('members', 2)
    socket.send('{"id":"ended","type":"complete"}')
    await waitForMetric('members', 1)
    const id = await deploy()
    await has(
      (message) =>
        message.id === 'kept' &&
        message.payload?.data?.deploymentStatus.status === 'SUCCEEDED' &&
        message.payload.data?.deploymentStatus.deploymentId === id,
    )
    expect(messages.filter((message) => message.id === 'ended')).toEqual([])
    socket.close()
    await waitForMetric('members', 0)
  })

  test('leaves no subscription behind, whatever it sends', async () => {
    const noise = [
      '{"type":"connection_init"}',
      '{',
      '[]',
      'null',
      '{"type":"next"}',
      '{"type":"ping"}',
      '{"type":"pong","payload":{}}',
      '{"id":"x","type":"complete"}',
      '{"id":"","type":"subscribe","payload":{"query":"{"}}',
      '{"id":"q","type":"subscribe","payload":{"query":"{ templates { name } }"}}',
      '{"id":"s","type":"subscribe","payload":{"query":"subscription { deploymentStatus(after: \\"x\\") { cursor } }"}}',
      subscribe('a'),
      subscribe('b'),
      '{"id":"a","type":"complete"}',
      '\u0000',
      Buffer.from([255, 254]),
    ]
    const deploying = Array.from({ length: 5 }, () => deploy())
    await Promise.all(
      Array.from({ length: 150 }, async (_, i) => {
        const socket = new WebSocket(server.socketUrl, 'graphql-transport-ws')
        socket.on('error', () => undefined)
        await withTimeout(once(socket, 'open'), 'the socket opens')
        const closed = new Promise((resolve) => socket.once('close', resolve))
        if (i % 3 > 0) socket.send('{"type":"connection_init"}')
        for (let n = 0; n < 20; n++) socket.send(noise[(i * 7 + n * n) % noise.length]!)
        if (i % 2) socket.terminate()
        else socket.close()
        await withTimeout(closed, 'the socket closes')
      }),
    )
    await Promise.all(deploying)
    for (const name of ['sockets', 'members', 'groups']) await waitForMetric(name, 0)
    expect((await fetch(`${server.url}/health/live`)).status).toBe(200)
  })
})
