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
import { GraphQLSchemaHost } from '@nestjs/graphql'
import { CloseCode, GRAPHQL_TRANSPORT_WS_PROTOCOL, handleProtocols, type Message } from 'graphql-ws'
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
/** One frame from a client. Large contents go over HTTP. */
const MAX_FRAME_BYTES = 1024 * 1024
/** Of one subject on this node. Everybody on this machine is one, and not counted. */
const MAX_SOCKETS_PER_SUBJECT = 500
/** What clients have sent of messages that have not come to their end, of all sockets together. */
const MAX_UNFINISHED_BYTES = 64 * 1024 * 1024
/** What clients have not read of what they have been sent, of all sockets together. */
const MAX_UNSENT_BYTES = 512 * 1024 * 1024
/** A message has so long to arrive, unless it is small. */
const MAX_UNFINISHED_SECONDS = 30
const SMALL_MESSAGE_BYTES = 4 * 1024
const INIT_SECONDS = 3
const PING_SECONDS = 12
/** A slow reader finds our ping only behind all that it has not read yet. */
const MAX_UNANSWERED_PINGS = 2
const SECOND_MS = 1_000
/** How long a socket may take nothing although there is something for it. */
const MAX_STALL_MS = 30_000
/** Sockets that are closed at once when the node goes away; more than that in batches over `DRAIN_MS`. */
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
/** Not a code that ends a client for good: another node may have room. */
const TOO_MANY_SOCKETS = {
  code: 1013,
  reason: `You have ${MAX_SOCKETS_PER_SUBJECT} sockets open here; close some, and share one between subscriptions`,
}
/** How long a client that was refused a socket has to read why. */
const REJECTION_GRACE_MS = 1_000
const MESSAGE_TIMEOUT = {
  code: 1013,
  reason: 'A message took too long to arrive; send it again, or send it over HTTP',
}
const SERVICE_RESTART = { code: 1012, reason: 'Restarting; come back with your cursor' }
const LOG_CHANGED = { code: 1012, reason: 'The database has lost events; come back with your cursor' }
/** An error of ours. After graphql-ws's own code for that its client does not come back. */
const INTERNAL_ERROR = { code: 1013, reason: 'Something went wrong on our side; come back with your cursor' }

/**
 * The subscription socket: `WS /graphql`, subprotocol graphql-transport-ws. The WebSocket server is our own, so that
 * sizes, origins, slow readers and the end are ours to say. See PROTOCOL.md.
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
    maxPayload: MAX_FRAME_BYTES,
    handleProtocols,
  })
  private readonly connections = new Set<Connection>()
  /** Those of which it is not known yet who they are, and the networks that they come from. */
  private readonly unauthenticated = new Map<Connection, string>()
  private readonly unauthenticatedByNetwork = new Counts()
  private readonly countsBySubject = new Counts()
  private readonly hasProxies: boolean
  private server: Server | undefined
  private checkTimer: NodeJS.Timeout | undefined
  private isShuttingDown = false
  private currentSecond = 0
  private openedCount = 0

  constructor(
    private readonly config: Config,
    private readonly adapterHost: HttpAdapterHost,
    private readonly schemaHost: GraphQLSchemaHost,
    private readonly protocol: GraphQLProtocol,
    private readonly sessionMonitor: SessionMonitor,
    private readonly metrics: LiveMetrics,
    private readonly feed: EventFeed,
    private readonly clientAddress: ClientAddress,
    private readonly originPolicy: OriginPolicy,
  ) {
    this.hasProxies = config.trustedProxies.length > 0
  }

  onApplicationBootstrap(): void {
    this.protocol.setSchema(this.schemaHost.schema)
    this.server = this.adapterHost.httpAdapter.getHttpServer() as Server
    this.server.on('upgrade', this.onUpgrade)
    this.checkTimer = setInterval(() => this.checkSockets(), SECOND_MS)
    this.feed.onLogRotated(() => this.closeAll())
  }

  /** Sends everybody away, a batch at a time, so that they do not all arrive elsewhere at once. */
  async beforeApplicationShutdown(): Promise<void> {
    this.isShuttingDown = true
    const { drainMs } = this.config
    const leaving = [...this.connections]
    const mostBatches = Math.max(1, Math.floor(drainMs / MIN_DRAIN_PAUSE_MS))
    const batches = Math.min(mostBatches, Math.ceil(leaving.length / MIN_DRAIN_BATCH_SIZE))
    const perBatch = Math.ceil(leaving.length / batches)
    const ended: Promise<void>[] = []
    for (let start = 0; start < leaving.length; start += perBatch) {
      if (start > 0) await sleep(drainMs / batches)
      for (const connection of leaving.slice(start, start + perBatch)) {
        ended.push(connection.closeAndWait(SERVICE_RESTART.code, SERVICE_RESTART.reason))
      }
    }
    await Promise.all(ended)
    clearInterval(this.checkTimer)
    this.webSocketServer.close()
  }

  private readonly onUpgrade = (request: IncomingMessage, stream: Duplex, head: Buffer): void => {
    const address = this.clientAddress.of(request)
    const network = networkOf(address)
    const refusal = this.upgradeRejection(request, network)
    if (refusal) {
      this.metrics.refusals.inc({ reason: refusal.reason })
      rejectUpgrade(stream, refusal)
      return
    }
    this.webSocketServer.handleUpgrade(request, stream, head, (socket) => {
      // An HTTP server's stream, although its type does not say so.
      const second = this.openedCount++ % PING_SECONDS
      const forwardedFor = this.hasProxies ? address : undefined
      const { headers } = request
      const connection = new Connection(socket, stream as Socket, second, headers, forwardedFor, this)
      this.connections.add(connection)
      this.unauthenticated.set(connection, network)
      this.unauthenticatedByNetwork.add(network)
      this.metrics.sockets.inc()
      if (connection.protocol !== GRAPHQL_TRANSPORT_WS_PROTOCOL) {
        connection.close(UNSUPPORTED_SUBPROTOCOL.code, UNSUPPORTED_SUBPROTOCOL.reason)
      }
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

  onClose(connection: Connection): void {
    this.connections.delete(connection)
    this.removeUnauthenticated(connection)
    if (connection.identity) this.countsBySubject.remove(connection.identity.subject.id)
    this.metrics.sockets.dec()
    this.sessionMonitor.unwatch(connection)
  }

  onMessage(connection: Connection, message: Message): void {
    this.protocol.handleMessage(connection, message)?.catch((error: unknown) => {
      this.logger.error('A message could not be handled', { connectionId: connection.id, error })
      connection.close(INTERNAL_ERROR.code, INTERNAL_ERROR.reason)
    })
  }

  onError(connection: Connection, error: Error): void {
    this.logger.debug('A socket failed', { connectionId: connection.id, error })
  }

  private removeUnauthenticated(connection: Connection): void {
    const network = this.unauthenticated.get(connection)
    if (network === undefined) return
    this.unauthenticated.delete(connection)
    this.unauthenticatedByNetwork.remove(network)
  }

  private upgradeRejection(request: IncomingMessage, network: string): UpgradeRejection | undefined {
    if (request.url?.split('?')[0] !== PATH) {
      const sentence = `There is no socket at this path; it is at ${PATH}.`
      return { status: '404 Not Found', reason: 'path', message: sentence }
    }
    if (this.isShuttingDown) {
      const sentence = 'This node is going away; ask another one.'
      return { status: '503 Service Unavailable', reason: 'leaving', message: sentence }
    }
    const foreign = this.originPolicy.rejectionReason(request)
    if (foreign) return { status: '403 Forbidden', reason: 'origin', message: foreign }
    const maxSockets = this.server ? maxSocketsOf(this.server) : 0
    if (this.connections.size >= maxSockets) {
      const sentence = 'Too many sockets are open here; try again later, or on another node.'
      return { status: '503 Service Unavailable', reason: 'sockets', message: sentence }
    }
    // Behind a proxy that is not known as one (TRUSTED_PROXIES) all come from one network, at once when they come back.
    if (this.unauthenticatedByNetwork.get(network) >= maxSockets / 2) {
      const sentence = 'Too many sockets from your address have not sent connection_init; try again later.'
      return { status: '503 Service Unavailable', reason: 'unidentified sockets', message: sentence }
    }
    return undefined
  }

  /** Every second: pings a twelfth of the sockets, and looks after those that say nothing or take nothing. */
  private checkSockets(): void {
    this.currentSecond = (this.currentSecond + 1) % PING_SECONDS
    let unsentBytes = 0
    const unfinished: Connection[] = []
    for (const connection of this.connections) {
      const { writer } = connection
      unsentBytes += writer.unsentBytes
      if (connection.unfinishedBytes <= SMALL_MESSAGE_BYTES) connection.unfinishedSeconds = 0
      else if (++connection.unfinishedSeconds <= MAX_UNFINISHED_SECONDS) unfinished.push(connection)
      else connection.close(MESSAGE_TIMEOUT.code, MESSAGE_TIMEOUT.reason)
      if (!connection.isInitialised && ++connection.secondsWithoutInit > INIT_SECONDS) {
        connection.close(NOT_INITIALISED.code, NOT_INITIALISED.reason)
      }
      if (writer.isStalled) {
        if (performance.now() - writer.lastProgressAt > MAX_STALL_MS) this.closeSlowConsumer(connection)
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

  /** Closes those that have most to read until the others fit. */
  private limitUnsent(unsentBytes: number): void {
    const all = [...this.connections].sort((one, other) => other.writer.unsentBytes - one.writer.unsentBytes)
    let bytes = unsentBytes
    for (const connection of all) {
      if (bytes <= MAX_UNSENT_BYTES) return
      bytes -= connection.writer.unsentBytes
      this.closeSlowConsumer(connection)
    }
  }

  /** Closes those whose messages have been coming in for longest until the others fit. */
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

  /** All in one turn: nothing of another log may follow on a subscription. Their cursors are then answered as unknown. */
  private closeAll(): void {
    for (const connection of this.connections)
      void connection.closeAndWait(LOG_CHANGED.code, LOG_CHANGED.reason)
  }

  private closeSlowConsumer(connection: Connection): void {
    this.logger.log('A viewer was too slow', { connectionId: connection.id })
    this.metrics.slowCloses.inc()
    void connection.closeAndWait(SLOW_CONSUMER.code, SLOW_CONSUMER.reason)
  }
}

interface UpgradeRejection {
  status: string
  /** For the metrics. */
  reason: string
  message: string
}

function rejectUpgrade(stream: Duplex, { status, message: sentence }: UpgradeRejection): void {
  const body = `${sentence}\n`
  const head = [
    `HTTP/1.1 ${status}`,
    'Content-Type: text/plain; charset=utf-8',
    `Content-Length: ${Buffer.byteLength(body)}`,
    'Connection: close',
  ]
  stream.once('error', () => stream.destroy())
  stream.end(`${head.join('\r\n')}\r\n\r\n${body}`)
  const cutOff = setTimeout(() => stream.destroy(), REJECTION_GRACE_MS)
  stream.once('close', () => clearTimeout(cutOff))
}
