import { once } from 'node:events'
import { createServer, type Server } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import { afterEach, beforeEach, expect, test } from '@jest/globals'
import { WebSocket, WebSocketServer } from 'ws'
import { waitUntil } from '../../test/support/processes.ts'
import { Connection, type ConnectionListener, ConnectionWebSocket } from './connection.ts'

let server: Server
let client: WebSocket
let connection: Connection
let closed: Promise<void>
let received: string[]

beforeEach(async () => {
  received = []
  server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const sockets = new WebSocketServer({ noServer: true, WebSocket: ConnectionWebSocket })
  const opened = new Promise<void>((resolve) => {
    server.once('upgrade', (request, stream, head) =>
      sockets.handleUpgrade(request, stream, head, (socket) => {
        closed = new Promise((resolveClosed) => {
          const listener: ConnectionListener = {
            onMessage: (_, message) => received.push(String(message)),
            onAuthenticated: () => true,
            onOperationFailed: () => undefined,
            onError: () => undefined,
            onClose: () => resolveClosed(),
          }
          connection = new Connection(socket, stream as Socket, 0, {}, undefined, listener)
        })
        resolve()
      }),
    )
  })
  client = new WebSocket(`ws://127.0.0.1:${(server.address() as AddressInfo).port}`)
  await Promise.all([opened, once(client, 'open')])
})

afterEach(() => {
  client.terminate()
  server.close()
})

test('a client that does not answer the close is terminated soon; until then its messages are dropped', async () => {
  client.send('{"type":"ping"}')
  await waitUntil(() => received.length > 0, 'the ping is received')
  // The client does not read the close, and keeps sending.
  client.pause()
  connection.close(4401, 'Ended')
  client.send('{"type":"pong"}')
  await closed
  expect(received).toEqual(['{"type":"ping"}'])
})

test('only the first of several closes counts', async () => {
  for (let i = 0; i < 20; i++) connection.close(4401, 'Ended')
  await Promise.all([connection.closeAndWait(4403, 'Later'), connection.closeAndWait(1012, 'Later'), closed])
  const [code] = client.readyState === client.CLOSED ? [4401] : await once(client, 'close')
  expect(code).toBe(4401)
})

test('closes the socket of a client that requests more than it reads', async () => {
  client.pause()
  const sent: Promise<void>[] = []
  let maxUnsentBytes = 0
  for (let i = 0; i < 100; i++) {
    sent.push(connection.send('x'.repeat(1024 * 1024)))
    maxUnsentBytes = Math.max(maxUnsentBytes, connection.writer.unsentBytes)
  }
  await closed
  await Promise.all(sent)
  expect(maxUnsentBytes).toBeLessThan(20 * 1024 * 1024)
})

test('counts the bytes of an incomplete message, but not the control frames between its fragments', async () => {
  const KIB = 1024
  client.send('{"type":"pi', { fin: false })
  client.send('x'.repeat(100 * KIB), { fin: false })
  for (let i = 0; i < 2_000; i++) client.ping('y'.repeat(100))
  client.pong()
  await waitUntil(() => connection.unfinishedBytes >= 100 * KIB, 'the fragments have arrived')
  const answered = new Promise<void>((resolve) => {
    client.on('pong', (payload) => String(payload) === 'last' && resolve())
  })
  client.ping('last')
  await answered
  // Beyond the payload: headers and masks, at most ten and four bytes each.
  expect(connection.unfinishedBytes).toBeGreaterThan(100 * KIB)
  expect(connection.unfinishedBytes).toBeLessThan(100 * KIB + 100)
  client.send('', { fin: true })
  await waitUntil(() => received.length > 0, 'the message is received')
  expect(connection.unfinishedBytes).toBe(0)
})

test('keeps the order of messages that follow a large one, which waits for its turn', async () => {
  const large = JSON.stringify({ type: 'ping', payload: { text: 'x'.repeat(500_000) } })
  const messages = [large, '{"type":"pong"}', '{"id":"1","type":"complete"}', large, '{"type":"pong"}']
  for (const message of messages) client.send(message)
  await waitUntil(() => received.length === messages.length, 'all messages are received')
  expect(received).toEqual(messages)
})
