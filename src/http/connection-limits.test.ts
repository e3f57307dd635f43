import { once } from 'node:events'
import { createServer, type Server, type ServerResponse } from 'node:http'
import { type AddressInfo, connect, type Socket } from 'node:net'
import { afterEach, beforeEach, expect, test } from '@jest/globals'
import { limitConnections } from './connection-limits.ts'

const MAX = 10
let server: Server
let port: number
let clients: Socket[]
/** Responses to /wait, which the test ends. */
let waiting: ServerResponse[]
/** Responses whose requests have arrived. */
let received: Set<ServerResponse>

beforeEach(() => {
  clients = []
  waiting = []
  received = new Set()
})

afterEach(async () => {
  for (const client of clients) client.destroy()
  server.close()
  await once(server, 'close')
})

async function start(trustedProxies: string[] = []): Promise<void> {
  server = createServer((request, response) => {
    request.resume().once('end', () => received.add(response))
    if (request.url === '/wait') waiting.push(response)
    else response.end('here')
  })
  server.on('upgrade', ({ url }, stream) => {
    stream.on('error', () => undefined)
    if (url === '/refused') return stream.end('HTTP/1.1 404 Not Found\r\n\r\n')
    stream.write('HTTP/1.1 101 Switching Protocols\r\n\r\n')
    stream.on('end', () => stream.end()).resume()
  })
  limitConnections(server, { trustedProxies }, MAX)
  server.listen(0)
  await once(server, 'listening')
  port = (server.address() as AddressInfo).port
}

async function open(localAddress = '127.0.0.1'): Promise<Socket> {
  const before = await connections()
  const socket = connectNow(localAddress)
  await once(socket, 'connect')
  // Accepted or refused by the server.
  while ((await connections()) === before && !socket.closed) await new Promise(setImmediate)
  return socket
}

const untilClosed = async (socket: Socket) => {
  socket.resume()
  while (!socket.closed) await new Promise(setImmediate)
}

function connections(): Promise<number> {
  return new Promise((resolve, reject) =>
    server.getConnections((error, count) => (error ? reject(error) : resolve(count))),
  )
}

async function sendRequest(socket: Socket, path = '/', headers = ''): Promise<string> {
  socket.write(`GET ${path} HTTP/1.1\r\nHost: x\r\n${headers}\r\n`)
  const [data] = await once(socket, 'data')
  return String(data)
}

test('a new connection replaces the one that has been idle for longest, in its own network first', async () => {
  await start()
  const other = await open('127.0.0.2')
  const first = await open()
  const [second, ...rest] = [await open(), await open(), await open(), await open()]
  // No longer the longest idle: it has just sent a request.
  expect(await sendRequest(first)).toContain('here')
  const newest = connectNow('127.0.0.1')
  await untilClosed(second as Socket)
  for (const socket of [newest, first, ...rest, other]) expect(await sendRequest(socket)).toContain('here')
})

test('a connection with a request in progress and a WebSocket stay open; other connections are accepted', async () => {
  await start()
  const sockets = []
  for (let i = 0; i < 4; i++) {
    const socket = await open()
    expect(await sendRequest(socket, '/', 'Connection: Upgrade\r\nUpgrade: websocket\r\n')).toContain('101')
    sockets.push(socket)
  }
  const busy = []
  for (let i = 0; i < 5; i++) {
    const socket = await open()
    socket.write('GET /wait HTTP/1.1\r\nHost: x\r\n\r\n')
    busy.push(socket)
    while (waiting.length <= i) await new Promise(setImmediate)
  }
  // In this network, only the newest connection is idle.
  await untilClosed(connectNow('127.0.0.1'))
  expect(await sendRequest(await open('127.0.0.2'))).toContain('here')
  for (const response of waiting) response.end('at last')
  for (const socket of busy) {
    const [data] = await once(socket, 'data')
    expect(String(data)).toContain('at last')
  }
  expect(sockets.every((socket) => !socket.closed)).toBe(true)
})

test('a connection whose request never completes is replaced', async () => {
  await start()
  const all = []
  for (let i = 0; i < MAX - 1; i++) {
    const socket = await open(`127.0.0.${2 + (i % 3)}`)
    socket.write('POST /wait HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12345')
    all.push(socket)
    while (waiting.length <= i) await new Promise(setImmediate)
  }
  // The first one has waited for longest.
  const next = connectNow('127.0.0.1')
  expect(await sendRequest(next)).toContain('here')
  await untilClosed(all[0] as Socket)
  expect(all[1]?.closed).toBe(false)
  // A connection with a complete request stays open.
  all[1]?.write('67890')
  while (!received.has(waiting[1] as ServerResponse)) await new Promise(setImmediate)
  for (let i = 0; i < MAX; i++) connectNow('127.0.0.1')
  await untilClosed(all[2] as Socket)
  waiting[1]?.end('at last')
  const [data] = await once(all[1] as Socket, 'data')
  expect(String(data)).toContain('at last')
})

test('a connection whose upgrade was refused is replaced', async () => {
  await start()
  const all = []
  for (let i = 0; i < MAX - 1; i++) {
    const socket = connect({
      port,
      host: '127.0.0.1',
      localAddress: `127.0.0.${2 + (i % 3)}`,
      allowHalfOpen: true,
    })
    clients.push(socket)
    all.push(socket)
    await once(socket, 'connect')
    expect(await sendRequest(socket, '/refused', 'Connection: Upgrade\r\nUpgrade: websocket\r\n')).toContain(
      '404',
    )
  }
  expect(await sendRequest(connectNow('127.0.0.1'))).toContain('here')
  expect(await sendRequest(connectNow('127.0.0.1'))).toContain('here')
})

test('a connection with too many pipelined requests is closed', async () => {
  await start()
  const socket = await open()
  socket.write('GET /wait HTTP/1.1\r\nHost: x\r\n\r\n'.repeat(100))
  await untilClosed(socket)
})

test('a trusted proxy may use all connections', async () => {
  await start(['127.0.0.1'])
  const all = []
  for (let i = 0; i < MAX - 1; i++) all.push(await open())
  for (const socket of all) expect(await sendRequest(socket)).toContain('here')
})

function connectNow(localAddress: string): Socket {
  const socket = connect({ port, host: '127.0.0.1', localAddress })
  socket.on('error', () => undefined)
  clients.push(socket)
  return socket
}

test('refuses requests in chunks of a few bytes, and accepts larger chunks', async () => {
  await start()
  const send = async (chunk: string, count: number) => {
    const client = connectNow('127.0.0.1').setEncoding('utf8')
    let answer = ''
    client.on('data', (data) => {
      answer += data
    })
    client.write('POST /wait HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n')
    client.write(`${`${chunk.length.toString(16)}\r\n${chunk}\r\n`.repeat(count)}0\r\n\r\n`)
    return { client, answer: () => answer }
  }
  for (const chunk of ['x', 'x'.repeat(9)]) {
    const { client, answer } = await send(chunk, 30_000)
    await untilClosed(client)
    // A client that is still sending may lose the response with its connection.
    expect(answer()).toMatch(/^$|^HTTP\/1\.1 400 [\s\S]*Send larger chunks/)
  }
  expect(received.size).toBe(0)
  await send('x', 1_000)
  await send('x'.repeat(16), 30_000)
  while (received.size < 2) await new Promise(setImmediate)
})
