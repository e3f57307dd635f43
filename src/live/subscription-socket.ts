import type { IncomingMessage, Server } from 'node:http'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import {
  type BeforeApplicationShutdown,
  Injectable,
  Logger,
  type OnApplicationBootstrap,
} from '@nestjs/common'
import { HttpAdapterHost } from '@nestjs/core'
import { CloseCode, GRAPHQL_TRANSPORT_WS_PROTOCOL, handleProtocols } from 'graphql-ws'
import { WebSocketServer } from 'ws'
import { ClientAddress, networkOf } from '../auth/client-address.ts'
import { SessionMonitor } from '../auth/credentials/session-monitor.ts'
import { LOCAL_SUBJECT, type Subject } from '../auth/rights.ts'
import { Config } from '../config/config.ts'
import { EventFeed } from '../events/event-feed.ts'
import { maxSocketsOf } from '../http/connection-limits.ts'
import { OriginPolicy } from '../http/origin.middleware.ts'
import { Counts } from '../runtime/counts.ts'
import { Connection, type ConnectionListener, ConnectionWebSocket, SLOW_CONSUMER } from './connection.ts'
import { GraphQLProtocol } from './graphql-protocol.ts'
import { LiveMetrics } from './live-metrics.ts'

const PATH = '/graphql'
/** One message from a client. Large contents go over HTTP. */
const MAX_MESSAGE_BYTES = 1024 * 1024
/** Sockets on this node. Does not apply to the local subject, which is everyone on this machine. */
const MAX_SOCKETS_PER_SUBJECT = 500
/** Bytes of incomplete messages, of all sockets together. */
const MAX_UNFINISHED_BYTES = 64 * 1024 * 1024
/** Bytes that clients have not read, of all sockets together. */
const MAX_UNSENT_BYTES = 512 * 1024 * 1024
/** How long a message may take to arrive, unless it is small. */
const MAX_UNFINISHED_SECONDS = 30
const SMALL_MESSAGE_BYTES = 4 * 1024
const INIT_SECONDS = 3
const PING_SECONDS = 12
/** A slow reader receives a ping only after everything that it has not read yet. */
const MAX_UNANSWERED_PINGS = 2
const SECOND_MS = 1_000
/** How long a socket with data to send may accept nothing. */
const MAX_STALL_MS = 30_000
/** Up to this many sockets are closed at once at shutdown; more are closed in batches over `DRAIN_MS`. */
const MIN_DRAIN_BATCH_SIZE = 50
const MIN_DRAIN_PAUSE_MS = 100

const NOT_INITIALISED = {
  code: CloseCode.ConnectionInitialisationTimeout,
  reason: 'Connection initialisation timeout',
}
const UNSUPPORTED_SUBPROTOCOL = {
  code: CloseCode.SubprotocolNotAcceptable,
  reason: 'Subprotocol not acceptable',
}
/** After this code clients reconnect: another node may have room. */
const TOO_MANY_SOCKETS = {
  code: 1013,
  reason: `You already have ${MAX_SOCKETS_PER_SUBJECT} sockets on this node; close some, or share one between subscriptions`,
}
/** How long a client has to read why its upgrade was refused. */
const REJECTION_GRACE_MS = 1_000
const MESSAGE_TIMEOUT = {
  code: 1013,
  reason: 'Message took too long to arrive; send it again, or send it over HTTP',
}
const SERVICE_RESTART = { code: 1012, reason: 'Service restart; reconnect with your last cursor' }
const LOG_ROTATED = { code: 1012, reason: 'The database has lost events; reconnect with your last cursor' }
/** Not 4500, the code of graphql-ws: its client does not reconnect after it. */
const INTERNAL_ERROR = { code: 1013, reason: 'Internal error; reconnect with your last cursor' }

/** The time, which tests can replace. */
export class SocketClock {
  now(): number {
    return performance.now()
  }

  /** Calls back every second. Returns a function that stops this. */
  everySecond(callback: () => void): () => void {
    const timer = setInterval(callback, SECOND_MS)
    return () => clearInterval(timer)
  }
}

/**
 * The subscription socket: `WS /graphql`, subprotocol graphql-transport-ws. Accepts and closes sockets and
 * enforces the bounds on them; GraphQLProtocol handles their messages. See PROTOCOL.md.
 */
@Injectable()
export class SubscriptionSocket
  implements OnApplicationBootstrap, BeforeApplicationShutdown, ConnectionListener
{
  private readonly logger = new Logger(SubscriptionSocket.name)
  private readonly webSocketServer = new WebSocketServer({
    WebSocket: ConnectionWebSocket,
    noServer: true,
    clientTracking: false,
    maxPayload: MAX_MESSAGE_BYTES,
    handleProtocols,
  })
  private readonly openConnections = new Set<Connection>()
  /** Connections that are not authenticated yet, with their networks. */
  private readonly unauthenticated = new Map<Connection, string>()
  private readonly unauthenticatedByNetwork = new Counts()
  private readonly countsBySubject = new Counts()
  private readonly hasProxies: boolean
  private server: Server | undefined
  private stopClock: (() => void) | undefined
  private isShuttingDown = false
  private currentSecond = 0
  private openedCount = 0

  constructor(
    private readonly config: Config,
    private readonly adapterHost: HttpAdapterHost,
    private readonly originPolicy: OriginPolicy,
    private readonly clientAddress: ClientAddress,
    private readonly protocol: GraphQLProtocol,
    private readonly sessionMonitor: SessionMonitor,
    private readonly metrics: LiveMetrics,
    private readonly feed: EventFeed,
    private readonly clock: SocketClock,
  ) {
    this.hasProxies = config.trustedProxies.length > 0
  }

  get connections(): ReadonlySet<Connection> {
    return this.openConnections
  }

  onApplicationBootstrap(): void {
    this.server = this.adapterHost.httpAdapter.getHttpServer() as Server
    this.server.on('upgrade', this.onUpgrade)
    this.stopClock = this.clock.everySecond(() => this.checkConnections())
    this.feed.onLogRotated(() => this.closeAll())
  }

  /** Closes all sockets, in batches, so that clients do not all reconnect to other nodes at once. */
  async beforeApplicationShutdown(): Promise<void> {
    this.isShuttingDown = true
    const { drainMs } = this.config
    const connections = [...this.openConnections]
    const maxBatches = Math.max(1, Math.floor(drainMs / MIN_DRAIN_PAUSE_MS))
    const batchCount = Math.min(maxBatches, Math.ceil(connections.length / MIN_DRAIN_BATCH_SIZE))
    const batchSize = Math.ceil(connections.length / batchCount)
    const closing: Promise<void>[] = []
    for (let start = 0; start < connections.length; start += batchSize) {
      if (start > 0) await sleep(drainMs / batchCount)
      for (const connection of connections.slice(start, start + batchSize)) {
        closing.push(connection.closeAndWait(SERVICE_RESTART.code, SERVICE_RESTART.reason))
      }
    }
    await Promise.all(closing)
    this.stopClock?.()
    this.webSocketServer.close()
  }

  onMessage(connection: Connection, message: Buffer): void {
    this.protocol.handleMessage(connection, message)?.catch((error: unknown) => {
      this.logger.error('Could not handle a message', { connectionId: connection.id, error })
      connection.close(INTERNAL_ERROR.code, INTERNAL_ERROR.reason)
    })
  }

  onAuthenticated(connection: Connection, { id }: Subject): boolean {
    if (id !== LOCAL_SUBJECT.id && this.countsBySubject.get(id) >= MAX_SOCKETS_PER_SUBJECT) {
      this.metrics.refusals.inc({ reason: 'sockets of subject' })
      connection.close(TOO_MANY_SOCKETS.code, TOO_MANY_SOCKETS.reason)
      return false
    }
    this.countsBySubject.add(id)
    this.removeUnauthenticated(connection)
    return true
  }

  onOperationFailed(connection: Connection, operationId: string, error: unknown): void {
    void this.protocol.error(connection, operationId, [error])
  }

  onError(connection: Connection, error: Error): void {
    this.logger.debug('Socket error', { connectionId: connection.id, error })
  }

  onClose(connection: Connection): void {
    this.openConnections.delete(connection)
    this.removeUnauthenticated(connection)
    if (connection.identity) this.countsBySubject.remove(connection.identity.subject.id)
    this.metrics.sockets.dec()
    this.sessionMonitor.unwatch(connection)
  }

  private readonly onUpgrade = (request: IncomingMessage, stream: Duplex, head: Buffer): void => {
    const address = this.clientAddress.of(request)
    const network = networkOf(address)
    const rejection = this.upgradeRejection(request, network)
    if (rejection) {
      this.metrics.refusals.inc({ reason: rejection.reason })
      rejectUpgrade(stream, rejection)
      return
    }
    this.webSocketServer.handleUpgrade(request, stream, head, (socket) => {
      const pingSecond = this.openedCount++ % PING_SECONDS
      const forwardedFor = this.hasProxies ? address : undefined
      const { headers } = request
      // The stream of an HTTP server is a socket, although its type is Duplex.
      const connection = new Connection(socket, stream as Socket, pingSecond, headers, forwardedFor, this)
      this.openConnections.add(connection)
      this.unauthenticated.set(connection, network)
      this.unauthenticatedByNetwork.add(network)
      this.metrics.sockets.inc()
      if (connection.protocol !== GRAPHQL_TRANSPORT_WS_PROTOCOL) {
        connection.close(UNSUPPORTED_SUBPROTOCOL.code, UNSUPPORTED_SUBPROTOCOL.reason)
      }
    })
  }

  private upgradeRejection(request: IncomingMessage, network: string): UpgradeRejection | undefined {
    if (request.url?.split('?')[0] !== PATH) {
      const message = `No WebSocket at this path; use ${PATH}.`
      return { status: '404 Not Found', reason: 'path', message }
    }
    if (this.isShuttingDown) {
      const message = 'This node is shutting down; use another node.'
      return { status: '503 Service Unavailable', reason: 'leaving', message }
    }
    const originRejection = this.originPolicy.rejectionReason(request)
    if (originRejection) return { status: '403 Forbidden', reason: 'origin', message: originRejection }
    const maxSockets = this.server ? maxSocketsOf(this.server) : 0
    if (this.openConnections.size >= maxSockets) {
      const message = 'This node has too many sockets; try again later, or use another node.'
      return { status: '503 Service Unavailable', reason: 'sockets', message }
    }
    // Behind a proxy that TRUSTED_PROXIES does not list, all clients share one network, and may reconnect at
    // once.
    if (this.unauthenticatedByNetwork.get(network) >= maxSockets / 2) {
      const message = 'Too many sockets from your address have not sent connection_init; try again later.'
      return { status: '503 Service Unavailable', reason: 'unidentified sockets', message }
    }
    return undefined
  }

  private removeUnauthenticated(connection: Connection): void {
    const network = this.unauthenticated.get(connection)
    if (network === undefined) return
    this.unauthenticated.delete(connection)
    this.unauthenticatedByNetwork.remove(network)
  }

  /** Every second: pings a twelfth of the sockets, and closes those that exceed a bound. */
  private checkConnections(): void {
    const now = this.clock.now()
    this.currentSecond = (this.currentSecond + 1) % PING_SECONDS
    let unsentBytes = 0
    const unfinished: Connection[] = []
    for (const connection of this.openConnections) {
      const { writer } = connection
      unsentBytes += writer.unsentBytes
      if (connection.unfinishedBytes <= SMALL_MESSAGE_BYTES) connection.unfinishedSeconds = 0
      else if (++connection.unfinishedSeconds <= MAX_UNFINISHED_SECONDS) unfinished.push(connection)
      else connection.close(MESSAGE_TIMEOUT.code, MESSAGE_TIMEOUT.reason)
      if (!connection.isInitialised && ++connection.secondsWithoutInit > INIT_SECONDS) {
        connection.close(NOT_INITIALISED.code, NOT_INITIALISED.reason)
      }
      if (writer.isStalled) {
        if (now - writer.lastProgressAt > MAX_STALL_MS) this.closeSlowConsumer(connection)
        continue
      }
      if (connection.pingSecond !== this.currentSecond) continue
      if (connection.unansweredPings < MAX_UNANSWERED_PINGS) connection.ping()
      else connection.terminate()
    }
    this.metrics.unsentBytes.set(unsentBytes)
    this.limitUnfinished(unfinished)
    if (unsentBytes > MAX_UNSENT_BYTES) this.limitUnsent(unsentBytes)
  }

  /** Closes the sockets whose messages have been arriving for longest, until the others fit. */
  private limitUnfinished(unfinished: Connection[]): void {
    let bytes = unfinished.reduce((sum, { unfinishedBytes }) => sum + unfinishedBytes, 0)
    if (bytes <= MAX_UNFINISHED_BYTES) return
    unfinished.sort((one, other) => other.unfinishedSeconds - one.unfinishedSeconds)
    for (const connection of unfinished) {
      if (bytes <= MAX_UNFINISHED_BYTES) return
      bytes -= connection.unfinishedBytes
      connection.close(MESSAGE_TIMEOUT.code, MESSAGE_TIMEOUT.reason)
    }
  }

  /** Closes the sockets with the most unsent bytes, until the others fit. */
  private limitUnsent(unsentBytes: number): void {
    const connections = [...this.openConnections].sort(
      (one, other) => other.writer.unsentBytes - one.writer.unsentBytes,
    )
    let bytes = unsentBytes
    for (const connection of connections) {
      if (bytes <= MAX_UNSENT_BYTES) return
      bytes -= connection.writer.unsentBytes
      this.closeSlowConsumer(connection)
    }
  }

  private closeSlowConsumer(connection: Connection): void {
    this.logger.log('Closing a slow consumer', { connectionId: connection.id })
    this.metrics.slowCloses.inc()
    connection.close(SLOW_CONSUMER.code, SLOW_CONSUMER.reason)
  }

  /** In one turn: no event of another log may follow on a subscription. */
  private closeAll(): void {
    for (const connection of this.openConnections) connection.close(LOG_ROTATED.code, LOG_ROTATED.reason)
  }
}

interface UpgradeRejection {
  status: string
  /** The value of the metric's label. */
  reason: string
  message: string
}

function rejectUpgrade(stream: Duplex, { status, message }: UpgradeRejection): void {
  const body = `${message}\n`
  const head = [
    `HTTP/1.1 ${status}`,
    'Content-Type: text/plain; charset=utf-8',
    `Content-Length: ${Buffer.byteLength(body)}`,
    'Connection: close',
  ]
  stream.once('error', () => stream.destroy())
  stream.end(`${head.join('\r\n')}\r\n\r\n${body}`)
  const destroyTimer = setTimeout(() => stream.destroy(), REJECTION_GRACE_MS)
  stream.once('close', () => clearTimeout(destroyTimer))
}
