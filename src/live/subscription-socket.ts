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
import { AccessWatch } from '../auth/credentials/access-watch.ts'
import { clientAddress } from '../auth/credentials/authenticator.ts'
import { networkOf } from '../auth/limits.ts'
import { LOCAL, type Subject } from '../auth/rights.ts'
import { Config } from '../config/config.ts'
import { EventFeed } from '../events/event-feed.ts'
import { maxSocketsOf } from '../http/connection-limits.ts'
import { OriginGuard } from '../http/origin-guard.ts'
import { Counts } from '../runtime/counts.ts'
import { Connection, type ConnectionOwner, TOO_SLOW, ViewerSocket } from './connection.ts'
import { GraphQLProtocol } from './graphql-protocol.ts'
import { LiveMetrics } from './live-metrics.ts'

const PATH = '/graphql'
/** One frame from a client. Large contents go over HTTP. */
const MOST_FRAME_BYTES = 1024 * 1024
/** Of one subject on this node. Everybody on this machine is one, and not counted. */
const MAX_SOCKETS_OF_SUBJECT = 500
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
const MOST_UNANSWERED_PINGS = 2
const SECOND_MS = 1_000
/** How long a socket may take nothing although there is something for it. */
const MOST_STALL_MS = 30_000
/** Sockets that are closed at once when the node goes away; more than that in batches over `DRAIN_MS`. */
const LEAST_DRAIN_BATCH = 50
const LEAST_DRAIN_PAUSE_MS = 100

const NOT_INITIALISED = {
  code: CloseCode.ConnectionInitialisationTimeout,
  reason: 'Connection initialisation timeout',
}
const OTHER_PROTOCOL = { code: CloseCode.SubprotocolNotAcceptable, reason: 'Subprotocol not acceptable' }
/** Not a code that ends a client for good: another node may have room. */
const TOO_MANY_SOCKETS = {
  code: 1013,
  reason: `You have ${MAX_SOCKETS_OF_SUBJECT} sockets open here; close some, and share one between subscriptions`,
}
/** How long a client that was refused a socket has to read why. */
const REFUSAL_GRACE_MS = 1_000
const UNFINISHED = {
  code: 1013,
  reason: 'A message took too long to arrive; send it again, or send it over HTTP',
}
const GOING_AWAY = { code: 1012, reason: 'Restarting; come back with your cursor' }
const LOG_CHANGED = { code: 1012, reason: 'The database has lost events; come back with your cursor' }
/** An error of ours. After graphql-ws's own code for that its client does not come back. */
const FAILED = { code: 1013, reason: 'Something went wrong on our side; come back with your cursor' }

/**
 * The subscription socket: `WS /graphql`, subprotocol graphql-transport-ws. The WebSocket server is our own, so that
 * sizes, origins, slow readers and the end are ours to say. See PROTOCOL.md.
 */
@Injectable()
export class SubscriptionSocket
  implements OnApplicationBootstrap, BeforeApplicationShutdown, ConnectionOwner
{
  private readonly logger = new Logger(SubscriptionSocket.name)
  private readonly sockets = new WebSocketServer({
    WebSocket: ViewerSocket,
    noServer: true,
    clientTracking: false,
    maxPayload: MOST_FRAME_BYTES,
    handleProtocols,
  })
  private readonly connections = new Set<Connection>()
  /** Those of which it is not known yet who they are, and the networks that they come from. */
  private readonly unidentified = new Map<Connection, string>()
  private readonly unidentifiedByNetwork = new Counts()
  private readonly bySubject = new Counts()
  private readonly hasProxies: boolean
  private readonly addressOf: (request: IncomingMessage) => string
  private readonly originGuard: OriginGuard
  private server: Server | undefined
  private everySecond: NodeJS.Timeout | undefined
  private isLeaving = false
  private second = 0
  private opened = 0

  constructor(
    private readonly config: Config,
    private readonly adapterHost: HttpAdapterHost,
    private readonly schemaHost: GraphQLSchemaHost,
    private readonly protocol: GraphQLProtocol,
    private readonly accessWatch: AccessWatch,
    private readonly metrics: LiveMetrics,
    private readonly feed: EventFeed,
  ) {
    this.addressOf = clientAddress(config.trustedProxies)
    this.hasProxies = config.trustedProxies.length > 0
    this.originGuard = new OriginGuard(config)
  }

  onApplicationBootstrap(): void {
    this.protocol.use(this.schemaHost.schema)
    this.server = this.adapterHost.httpAdapter.getHttpServer() as Server
    this.server.on('upgrade', this.onUpgrade)
    this.everySecond = setInterval(() => this.look(), SECOND_MS)
    this.feed.onRestart(() => this.closeAll())
  }

  /** Sends everybody away, a batch at a time, so that they do not all arrive elsewhere at once. */
  async beforeApplicationShutdown(): Promise<void> {
    this.isLeaving = true
    const { drainMs } = this.config
    const leaving = [...this.connections]
    const mostBatches = Math.max(1, Math.floor(drainMs / LEAST_DRAIN_PAUSE_MS))
    const batches = Math.min(mostBatches, Math.ceil(leaving.length / LEAST_DRAIN_BATCH))
    const perBatch = Math.ceil(leaving.length / batches)
    const ended: Promise<void>[] = []
    for (let start = 0; start < leaving.length; start += perBatch) {
      if (start > 0) await sleep(drainMs / batches)
      for (const connection of leaving.slice(start, start + perBatch)) {
        ended.push(connection.end(GOING_AWAY.code, GOING_AWAY.reason))
      }
    }
    await Promise.all(ended)
    clearInterval(this.everySecond)
    this.sockets.close()
  }

  private readonly onUpgrade = (request: IncomingMessage, stream: Duplex, head: Buffer): void => {
    const address = this.addressOf(request)
    const network = networkOf(address)
    const refusal = this.refusal(request, network)
    if (refusal) {
      this.metrics.refusals.inc({ reason: refusal.reason })
      refuse(stream, refusal)
      return
    }
    this.sockets.handleUpgrade(request, stream, head, (socket) => {
      // An HTTP server's stream, although its type does not say so.
      const second = this.opened++ % PING_SECONDS
      const forwardedFor = this.hasProxies ? address : undefined
      const { headers } = request
      const connection = new Connection(socket, stream as Socket, second, headers, forwardedFor, this)
      this.connections.add(connection)
      this.unidentified.set(connection, network)
      this.unidentifiedByNetwork.add(network)
      this.metrics.sockets.inc()
      if (connection.protocol !== GRAPHQL_TRANSPORT_WS_PROTOCOL) {
        connection.close(OTHER_PROTOCOL.code, OTHER_PROTOCOL.reason)
      }
    })
  }

  identified(connection: Connection, { id }: Subject): boolean {
    if (id !== LOCAL.id && this.bySubject.of(id) >= MAX_SOCKETS_OF_SUBJECT) {
      this.metrics.refusals.inc({ reason: 'sockets of subject' })
      connection.close(TOO_MANY_SOCKETS.code, TOO_MANY_SOCKETS.reason)
      return false
    }
    this.bySubject.add(id)
    this.forgetUnidentified(connection)
    return true
  }

  closed(connection: Connection): void {
    this.connections.delete(connection)
    this.forgetUnidentified(connection)
    if (connection.identity) this.bySubject.remove(connection.identity.subject.id)
    this.metrics.sockets.dec()
    this.accessWatch.leave(connection)
  }

  received(connection: Connection, message: Message): void {
    this.protocol.receive(connection, message)?.catch((error: unknown) => {
      this.logger.error('A message could not be handled', { connectionId: connection.id, error })
      connection.close(FAILED.code, FAILED.reason)
    })
  }

  broke(connection: Connection, error: Error): void {
    this.logger.debug('A socket failed', { connectionId: connection.id, error })
  }

  private forgetUnidentified(connection: Connection): void {
    const network = this.unidentified.get(connection)
    if (network === undefined) return
    this.unidentified.delete(connection)
    this.unidentifiedByNetwork.remove(network)
  }

  private refusal(request: IncomingMessage, network: string): Refusal | undefined {
    if (request.url?.split('?')[0] !== PATH) {
      const sentence = `There is no socket at this path; it is at ${PATH}.`
      return { status: '404 Not Found', reason: 'path', sentence }
    }
    if (this.isLeaving) {
      const sentence = 'This node is going away; ask another one.'
      return { status: '503 Service Unavailable', reason: 'leaving', sentence }
    }
    const foreign = this.originGuard.refuse(request)
    if (foreign) return { status: '403 Forbidden', reason: 'origin', sentence: foreign }
    const maxSockets = this.server ? maxSocketsOf(this.server) : 0
    if (this.connections.size >= maxSockets) {
      const sentence = 'Too many sockets are open here; try again later, or on another node.'
      return { status: '503 Service Unavailable', reason: 'sockets', sentence }
    }
    // Behind a proxy that is not known as one (TRUSTED_PROXIES) all come from one network, at once when they come back.
    if (this.unidentifiedByNetwork.of(network) >= maxSockets / 2) {
      const sentence = 'Too many sockets from your address have not sent connection_init; try again later.'
      return { status: '503 Service Unavailable', reason: 'unidentified sockets', sentence }
    }
    return undefined
  }

  /** Every second: pings a twelfth of the sockets, and looks after those that say nothing or take nothing. */
  private look(): void {
    this.second = (this.second + 1) % PING_SECONDS
    let unsentBytes = 0
    const unfinished: Connection[] = []
    for (const connection of this.connections) {
      const { writer } = connection
      unsentBytes += writer.unsentBytes
      if (connection.unfinishedBytes <= SMALL_MESSAGE_BYTES) connection.unfinishedSeconds = 0
      else if (++connection.unfinishedSeconds <= MAX_UNFINISHED_SECONDS) unfinished.push(connection)
      else connection.close(UNFINISHED.code, UNFINISHED.reason)
      if (!connection.isInitialised && ++connection.secondsWaited > INIT_SECONDS) {
        connection.close(NOT_INITIALISED.code, NOT_INITIALISED.reason)
      }
      if (writer.isStalled) {
        if (performance.now() - writer.lastProgressAt > MOST_STALL_MS) this.closeSlow(connection)
        continue
      }
      if (connection.pingSecond !== this.second) continue
      if (connection.unansweredPings < MOST_UNANSWERED_PINGS) connection.ping()
      else connection.terminate()
    }
    this.metrics.unsentBytes.set(unsentBytes)
    this.boundUnfinished(unfinished)
    if (unsentBytes > MAX_UNSENT_BYTES) this.boundUnsent(unsentBytes)
  }

  /** Closes those that have most to read until the others fit. */
  private boundUnsent(unsentBytes: number): void {
    const all = [...this.connections].sort((one, other) => other.writer.unsentBytes - one.writer.unsentBytes)
    let bytes = unsentBytes
    for (const connection of all) {
      if (bytes <= MAX_UNSENT_BYTES) return
      bytes -= connection.writer.unsentBytes
      this.closeSlow(connection)
    }
  }

  /** Closes those whose messages have been coming in for longest until the others fit. */
  private boundUnfinished(unfinished: Connection[]): void {
    let bytes = unfinished.reduce((sum, { unfinishedBytes }) => sum + unfinishedBytes, 0)
    if (bytes <= MAX_UNFINISHED_BYTES) return
    unfinished.sort((one, other) => other.unfinishedSeconds - one.unfinishedSeconds)
    for (const connection of unfinished) {
      if (bytes <= MAX_UNFINISHED_BYTES) return
      bytes -= connection.unfinishedBytes
      connection.close(UNFINISHED.code, UNFINISHED.reason)
    }
  }

  /** All in one turn: nothing of another log may follow on a subscription. Their cursors are then answered as unknown. */
  private closeAll(): void {
    for (const connection of this.connections) void connection.end(LOG_CHANGED.code, LOG_CHANGED.reason)
  }

  private closeSlow(connection: Connection): void {
    this.logger.log('A viewer was too slow', { connectionId: connection.id })
    this.metrics.slowCloses.inc()
    void connection.end(TOO_SLOW.code, TOO_SLOW.reason)
  }
}

interface Refusal {
  status: string
  /** For the metrics. */
  reason: string
  sentence: string
}

function refuse(stream: Duplex, { status, sentence }: Refusal): void {
  const body = `${sentence}\n`
  const head = [
    `HTTP/1.1 ${status}`,
    'Content-Type: text/plain; charset=utf-8',
    `Content-Length: ${Buffer.byteLength(body)}`,
    'Connection: close',
  ]
  stream.once('error', () => stream.destroy())
  stream.end(`${head.join('\r\n')}\r\n\r\n${body}`)
  const cutOff = setTimeout(() => stream.destroy(), REFUSAL_GRACE_MS)
  stream.once('close', () => clearTimeout(cutOff))
}
