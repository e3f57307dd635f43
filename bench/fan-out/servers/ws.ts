import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { type WebSocket, WebSocketServer } from 'ws'
import { selectedFields } from '../events.ts'
import { createPublisher, serve } from './serve.ts'

/*
 * The lower bound: `ws` alone. It implements just enough of graphql-transport-ws for the same viewers to
 * connect, parses no GraphQL, and sends each viewer a text that is encoded once.
 */

const sockets = new WebSocketServer({
  host: '127.0.0.1',
  port: 0,
  handleProtocols: () => 'graphql-transport-ws',
})
const viewers = new Map<WebSocket, string>()

sockets.on('connection', (socket) => {
  socket.on('message', (data) => {
    const { type, id } = JSON.parse(String(data)) as { type: string; id: string }
    if (type === 'connection_init') socket.send('{"type":"connection_ack"}')
    else if (type === 'ping') socket.send('{"type":"pong"}')
    else if (type === 'subscribe') viewers.set(socket, `{"id":"${id}","type":"next","payload":`)
    else if (type === 'complete') viewers.delete(socket)
  })
  socket.on('error', () => socket.terminate())
  socket.on('close', () => viewers.delete(socket))
})

await once(sockets, 'listening')
serve({
  url: `ws://127.0.0.1:${(sockets.address() as AddressInfo).port}/graphql`,
  ...createPublisher((event) => {
    const rest = `${JSON.stringify({ data: { deploymentStatus: selectedFields(event) } })}}`
    for (const [socket, header] of viewers) socket.send(header + rest)
  }),
  async close() {
    for (const socket of sockets.clients) socket.terminate()
    sockets.close()
  },
})
