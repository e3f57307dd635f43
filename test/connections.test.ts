import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { afterAll, beforeAll, expect, test } from '@jest/globals'
import { WebSocket } from 'ws'
import { DEPLOY_MUTATION, type DeployResult, deployInput } from './support/inputs.ts'
import { TestServer } from './support/test-server.ts'
import { Viewer } from './support/viewer.ts'

let server: TestServer
const idle: Socket[] = []

beforeAll(async () => {
  server = await TestServer.start({ openFiles: 256 })
})

afterAll(async () => {
  for (const socket of idle) socket.destroy()
  await server.stop()
  await server.removeData()
})

/** Opens a connection that sends nothing, or only the beginning of a request. */
function hold(port: number): void {
  const socket = connect({ port, host: '127.0.0.1' })
  socket.on('error', () => undefined)
  if (idle.length % 2) socket.write('POST /graphql HTTP/1.1\r\n')
  idle.push(socket)
}

async function expectToWork(viewer: Viewer): Promise<void> {
  // Each request on its own connection.
  const ready = await fetch(`${server.url}/health/ready`, { headers: { connection: 'close' } })
  expect(ready.status).toBe(200)
  const { data, errors } = await server.request<DeployResult>(
    DEPLOY_MUTATION,
    { input: deployInput() },
    { connection: 'close' },
  )
  expect(errors).toBeUndefined()
  const events = await viewer.waitForEnd(data.deploy.id)
  expect(events.map(({ status }) => status)).toEqual([...Array(4).fill('RUNNING'), 'SUCCEEDED'])
}

test('a process that may open few files keeps some in reserve, however many connections are idle', async () => {
  const viewer = new Viewer(server.socketUrl)
  await viewer.connected()
  viewer.follow()
  for (let i = 0; i < 400; i++) hold(server.port)
  await Promise.all(idle.map((socket) => (socket.connecting ? once(socket, 'connect') : undefined)))
  for (let i = 0; i < 5; i++) await expectToWork(viewer)
  for (const socket of idle) socket.destroy()

  const sockets = Array.from({ length: 150 }, () => new WebSocket(server.socketUrl, 'graphql-transport-ws'))
  const outcomes = await Promise.all(
    sockets.map(
      (socket) =>
        new Promise<string>((resolve) => {
          socket.on('error', () => resolve('refused'))
          socket.once('open', () => {
            socket.send('{"type":"connection_init"}')
            resolve('open')
          })
        }),
    ),
  )
  expect(outcomes.filter((outcome) => outcome === 'open').length).toBeGreaterThan(50)
  expect(outcomes).toContain('refused')
  for (let i = 0; i < 5; i++) await expectToWork(viewer)
  for (const socket of sockets) socket.terminate()
  await viewer.close()
})
