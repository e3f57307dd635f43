import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { Logger } from '@nestjs/common'
import proxyAddress from 'proxy-addr'
import { networkOf } from '../auth/client-address.ts'
import type { Config } from '../config/config.ts'
import { Counts } from '../runtime/counts.ts'

/** TCP connections of a node: its WebSockets, and a quarter as many for everything else. */
const MAX_CONNECTIONS = 25_000
/** File descriptors for the database, git, the forge's files and Node itself. */
const RESERVED_FILES = 128
/** Pipelined requests of one connection (RFC 9112, section 9.3.2). Common clients do not pipeline. */
const MAX_PIPELINED_REQUESTS = 16
/** Tiny chunks of a request (RFC 9112, section 7.1): each one costs a parser call. */
const MAX_TINY_CHUNKS = 1_000
const TINY_CHUNK_BYTES = 10
/** The share of WebSockets: the rest is for health checks, requests and clones. */
const SOCKET_SHARE = 0.8

/**
 * Limits the TCP connections of a server by the number of files that its process may open. If the limit is
 * reached, the connection that has been idle for longest is closed, so that idle connections block no one.
 * One network can hold at most half of the connections, in addition to its WebSockets; trusted proxies are
 * exempt.
 */
export function limitConnections(
  server: Server,
  { trustedProxies }: Pick<Config, 'trustedProxies'>,
  max = maxConnections(),
): void {
  server.maxConnections = max
  const isTrusted = proxyAddress.compile([...trustedProxies])
  const connections = new Connections()
  // One listener for all connections, of which there may be many.
  function onClose(this: Socket): void {
    connections.remove(this)
  }

  server.on('connection', (socket: Socket) => {
    const address = socket.remoteAddress ?? ''
    const network = networkOf(address)
    connections.add(socket, network)
    socket.once('close', onClose)
    if (connections.countByNetwork(network) > max / 2 && !isTrusted(address, 0)) {
      connections.closeLongestIdle((_, from) => from === network)
    } else if (connections.openCount >= max) {
      // Makes room for the next connection, which Node would otherwise end.
      connections.closeLongestIdle((other) => other !== socket)
    }
  })
  server.on('request', (request: IncomingMessage, response: ServerResponse) => {
    const { socket } = request
    if (!connections.addRequest(socket, response)) socket.destroy()
    if (request.headers['transfer-encoding'] !== undefined) rejectTinyChunks(request)
    // An incomplete request counts as idle: it could otherwise hold its connection forever.
    if (hasBody(request)) request.once('end', () => connections.markBusy(socket))
    else connections.markBusy(socket)
    response.once('close', () => connections.finishRequest(socket, response))
  })
  server.on('upgrade', ({ socket }: IncomingMessage) => {
    // By then the upgrade is accepted or refused. A refused one stays idle, and closes if room is needed.
    process.nextTick(() => !socket.writableEnded && connections.markUpgraded(socket))
  })
}

/**
 * Refuses a request in chunks of a few bytes. The parser pushes all chunks of one read, each as an object,
 * before any reader of the request runs, so they are counted as they are pushed.
 */
function rejectTinyChunks(request: IncomingMessage): void {
  const { socket } = request
  const push = request.push.bind(request)
  let chunks = 0
  let bytes = 0
  let isRefused = false
  request.push = (chunk: Uint8Array | null) => {
    if (isRefused) return false
    if (chunk === null) return push(null)
    chunks++
    bytes += chunk.length
    if (chunks <= MAX_TINY_CHUNKS || bytes >= chunks * TINY_CHUNK_BYTES) return push(chunk)
    isRefused = true
    // The parser continues until the socket is destroyed.
    socket.write(TINY_CHUNKS_RESPONSE)
    socket.destroySoon()
    return false
  }
}

const TINY_CHUNKS_MESSAGE =
  'The request consists of chunks of a few bytes. Send larger chunks, or a Content-Length.\n'
const TINY_CHUNKS_RESPONSE = `HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: ${TINY_CHUNKS_MESSAGE.length}\r\nConnection: close\r\n\r\n${TINY_CHUNKS_MESSAGE}`

/** How many of a server's connections may be WebSockets. */
export function maxSocketsOf({ maxConnections }: Server): number {
  return Math.floor(SOCKET_SHARE * (maxConnections || MAX_CONNECTIONS))
}

function maxConnections(): number {
  const files = openFileLimit()
  const max = Math.min(MAX_CONNECTIONS, Math.max(files - RESERVED_FILES, Math.floor(files / 2)))
  if (max < MAX_CONNECTIONS) {
    new Logger('Connections').log(
      `Limited to ${max} connections: the process may open ${files} files (ulimit -n)`,
    )
  }
  return max
}

/** The soft limit, which Node has raised to the hard one. Infinite where none exists, as on Windows. */
function openFileLimit(): number {
  // The report would otherwise look up the host names of all connections.
  Reflect.set(process.report, 'excludeNetwork', true)
  const report = process.report.getReport() as { userLimits?: { open_files?: { soft?: unknown } } }
  Reflect.set(process.report, 'excludeNetwork', false)
  const limit = Number(report.userLimits?.open_files?.soft)
  return Number.isFinite(limit) ? limit : Number.POSITIVE_INFINITY
}

function hasBody({ headers }: IncomingMessage): boolean {
  return headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > 0
}

class Connections {
  openCount = 0
  /** Connections other than WebSockets, with their networks. */
  private readonly httpSockets = new Map<Socket, string>()
  private readonly byNetwork = new Counts()
  /** The `httpSockets` without a complete request; the first has been idle for longest. */
  private readonly idle = new Set<Socket>()
  /** Requests in progress. */
  private readonly pendingResponses = new WeakMap<Socket, Set<ServerResponse>>()

  countByNetwork(network: string): number {
    return this.byNetwork.get(network)
  }

  add(socket: Socket, network: string): void {
    this.openCount++
    this.httpSockets.set(socket, network)
    this.byNetwork.add(network)
    this.idle.add(socket)
  }

  remove(socket: Socket): void {
    this.openCount--
    this.markUpgraded(socket)
  }

  /** Returns false if the connection has too many requests. */
  addRequest(socket: Socket, response: ServerResponse): boolean {
    const requests = this.pendingResponses.get(socket) ?? new Set()
    this.pendingResponses.set(socket, requests.add(response))
    return requests.size <= MAX_PIPELINED_REQUESTS
  }

  /** A response on this connection is in progress. */
  markBusy(socket: Socket): void {
    this.idle.delete(socket)
  }

  finishRequest(socket: Socket, response: ServerResponse): void {
    const requests = this.pendingResponses.get(socket)
    requests?.delete(response)
    const isOpen = this.httpSockets.has(socket) && !socket.destroyed
    if (isOpen && requests?.size === 0) this.idle.add(socket)
  }

  /** The connection is a WebSocket from now on, which has its own limits. */
  markUpgraded(socket: Socket): void {
    const network = this.httpSockets.get(socket)
    if (network === undefined) return
    this.httpSockets.delete(socket)
    this.idle.delete(socket)
    this.byNetwork.remove(network)
  }

  /** Closes the longest idle of the connections that can be closed. */
  closeLongestIdle(canClose: (socket: Socket, network: string | undefined) => boolean): void {
    for (const socket of this.idle) {
      if (!canClose(socket, this.httpSockets.get(socket))) continue
      this.idle.delete(socket)
      socket.destroy()
      return
    }
  }
}
