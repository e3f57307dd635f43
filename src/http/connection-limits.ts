import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { Logger } from '@nestjs/common'
import proxyAddress from 'proxy-addr'
import { networkOf } from '../auth/client-address.ts'
import type { Config } from '../config/config.ts'
import { Counts } from '../runtime/counts.ts'

/** TCP connections of a node: its sockets, and a quarter as many for everything else. */
const MAX_CONNECTIONS = 25_000
/** File descriptors for the database, git, the forge's files and Node itself. */
const RESERVED_FILES = 128
/** Requests of one connection without an answer (pipelining, RFC 9112, section 9.3.2). No usual client sends a second. */
const MAX_PIPELINED_REQUESTS = 16
/** Chunks of a request (RFC 9112, section 7.1) that may be tiny: each costs a call of the parser, however short it is. */
const MAX_TINY_CHUNKS = 1_000
const TINY_CHUNK_BYTES = 10
/** Of the connections, so many may be sockets: health checks, requests and clones find a place beside them. */
const SOCKET_SHARE = 0.8

/**
 * Bounds the TCP connections of a server by what its process may open. A connection without a request that has arrived
 * makes way for a new one, the one that has been idle for longest first, so that idle ones keep nobody out. Beside its
 * sockets, one network has at most half of them; trusted proxies are not counted.
 */
export function limitConnections(
  server: Server,
  { trustedProxies }: Pick<Config, 'trustedProxies'>,
  max = maxConnections(),
): void {
  server.maxConnections = max
  const isTrusted = proxyAddress.compile([...trustedProxies])
  const connections = new Connections()
  // One for all: there may be very many.
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
      // So that the next one finds a place as well: when there is none, Node ends it.
      connections.closeLongestIdle((other) => other !== socket)
    }
  })
  server.on('request', (request: IncomingMessage, response: ServerResponse) => {
    const { socket } = request
    if (!connections.addRequest(socket, response)) socket.destroy()
    if (request.headers['transfer-encoding'] !== undefined) rejectTinyChunks(request)
    // Until then anyone can hold a place with a request that never comes to its end.
    if (hasBody(request)) request.once('end', () => connections.markBusy(socket))
    else connections.markBusy(socket)
    response.once('close', () => connections.finishRequest(socket, response))
  })
  server.on('upgrade', ({ socket }: IncomingMessage) => {
    // By then it has been refused or not. One that was has a while to read why, and makes way.
    process.nextTick(() => !socket.writableEnded && connections.markUpgraded(socket))
  })
}

/**
 * Refuses a request that comes in chunks of a few bytes. The parser hands over all that one read brought, before anyone
 * who reads the request has a turn, and each chunk is an object of its own: so they are counted as they come.
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
    // Its parser reads on for as long as the socket is there.
    socket.write(TINY_CHUNKS_RESPONSE)
    socket.destroySoon()
    return false
  }
}

const TINY_CHUNKS_MESSAGE =
  'The request came in chunks of a few bytes. Send larger chunks, or a Content-Length.\n'
const TINY_CHUNKS_RESPONSE = `HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: ${TINY_CHUNKS_MESSAGE.length}\r\nConnection: close\r\n\r\n${TINY_CHUNKS_MESSAGE}`

/** How many of a server's connections may be sockets. */
export function maxSocketsOf({ maxConnections }: Server): number {
  return Math.floor(SOCKET_SHARE * (maxConnections || MAX_CONNECTIONS))
}

function maxConnections(): number {
  const files = openFileLimit()
  const max = Math.min(MAX_CONNECTIONS, Math.max(files - RESERVED_FILES, Math.floor(files / 2)))
  if (max < MAX_CONNECTIONS) {
    new Logger('Connections').log(
      `At most ${max} connections at once: the process may open ${files} files (ulimit -n)`,
    )
  }
  return max
}

/** The soft limit, which Node has raised to the hard one. Where there is none, as on Windows: no bound. */
function openFileLimit(): number {
  // Otherwise it looks up the names of all that we are connected to.
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
  /** Those that are not sockets, and where they come from. */
  private readonly httpSockets = new Map<Socket, string>()
  private readonly byNetwork = new Counts()
  /** Those of them without a request that has arrived; the first has been idle for longest. */
  private readonly idle = new Set<Socket>()
  /** Requests under way. */
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

  /** False: there are too many. */
  addRequest(socket: Socket, response: ServerResponse): boolean {
    const requests = this.pendingResponses.get(socket) ?? new Set()
    this.pendingResponses.set(socket, requests.add(response))
    return requests.size <= MAX_PIPELINED_REQUESTS
  }

  /** It has a request that is being answered. */
  markBusy(socket: Socket): void {
    this.idle.delete(socket)
  }

  finishRequest(socket: Socket, response: ServerResponse): void {
    const requests = this.pendingResponses.get(socket)
    requests?.delete(response)
    const isOpen = this.httpSockets.has(socket) && !socket.destroyed
    if (isOpen && requests?.size === 0) this.idle.add(socket)
  }

  /** It is a socket of the subscription protocol from now on, which has bounds of its own. */
  markUpgraded(socket: Socket): void {
    const network = this.httpSockets.get(socket)
    if (network === undefined) return
    this.httpSockets.delete(socket)
    this.idle.delete(socket)
    this.byNetwork.remove(network)
  }

  /** Ends the one that has been idle for longest, of those that may be ended. */
  closeLongestIdle(mayEnd: (socket: Socket, network: string | undefined) => boolean): void {
    for (const socket of this.idle) {
      if (!mayEnd(socket, this.httpSockets.get(socket))) continue
      this.idle.delete(socket)
      socket.destroy()
      return
    }
  }
}
