import { randomUUID } from 'node:crypto'
import type { IncomingMessage, Server } from 'node:http'
import type { Duplex } from 'node:stream'
import {
  type BeforeApplicationShutdown,
  Injectable,
  Logger,
  type OnApplicationBootstrap,
} from '@nestjs/common'
import { HttpAdapterHost } from '@nestjs/core'
import { GraphQLSchemaHost } from '@nestjs/graphql'
import type { GraphQLError, GraphQLFormattedError } from 'graphql'
import type { Context, ServerOptions } from 'graphql-ws'
import { type Extra as SocketExtra, useServer } from 'graphql-ws/use/ws'
import { type WebSocket, WebSocketServer } from 'ws'
import { Config } from '../config.ts'
import { RateLimited } from '../errors.ts'
import { EventFeed } from '../events/event-feed.ts'
import { forClient } from '../graphql/client-errors.ts'
import { type Operation, readDocument, refuseDear } from '../graphql/document-limits.ts'
import type { RequestContext } from '../request-context.ts'
import { refuseForeign } from './same-origin.ts'

const PATH = '/graphql'
/** One frame from a client. Large contents go over HTTP. */
const MOST_FRAME_BYTES = 1024 * 1024
const MOST_OPERATIONS = 100
const MOST_SOCKETS = 10_000
const INIT_TIMEOUT_MS = 3_000
const PING_MS = 12_000
/** How long a client has to answer our close before its socket is cut off. */
const CLOSE_GRACE_MS = 1_000

const GOING_AWAY = { code: 1012, reason: 'Restarting; come back with your cursor' }

interface Extra extends SocketExtra {
  connectionId: string
  controller: AbortController
}

type Connection = Context<Record<string, unknown> | undefined, Extra>

/**
 * The subscription socket: `WS /graphql`, subprotocol graphql-transport-ws, whose rules graphql-ws keeps. The
 * WebSocket server is our own, so that sizes, origins and the end are ours to say. See PROTOCOL.md.
 */
@Injectable()
export class SubscriptionSocket implements OnApplicationBootstrap, BeforeApplicationShutdown {
  private readonly logger = new Logger(SubscriptionSocket.name)
  private readonly sockets = new WebSocketServer({ noServer: true, maxPayload: MOST_FRAME_BYTES })
  private server: Server | undefined

  constructor(
    private readonly config: Config,
    private readonly adapterHost: HttpAdapterHost,
    private readonly schemaHost: GraphQLSchemaHost,
    private readonly feed: EventFeed,
  ) {}

  onApplicationBootstrap(): void {
    useServer<Record<string, unknown>, Partial<Extra>>(this.options() as ServerOptions, this.sockets, PING_MS)
    this.server = this.adapterHost.httpAdapter.getHttpServer() as Server
    this.server.on('upgrade', this.onUpgrade)
  }

  async beforeApplicationShutdown(): Promise<void> {
    this.server?.off('upgrade', this.onUpgrade)
    const closed = [...this.sockets.clients].map((socket) => close(socket))
    await Promise.all(closed)
    this.sockets.close()
  }

  private readonly onUpgrade = (request: IncomingMessage, socket: Duplex, head: Buffer): void => {
    const refusal = this.refusal(request)
    if (refusal) {
      refuse(socket, refusal)
      return
    }
    this.sockets.handleUpgrade(request, socket, head, (webSocket) => {
      this.sockets.emit('connection', webSocket, request)
    })
  }

  private refusal(request: IncomingMessage): Refusal | undefined {
    if (request.url?.split('?')[0] !== PATH) {
      return { status: '404 Not Found', sentence: `There is no socket at this path; it is at ${PATH}.` }
    }
    const foreign = refuseForeign(request, this.config)
    if (foreign) return { status: '403 Forbidden', sentence: foreign }
    if (this.sockets.clients.size >= MOST_SOCKETS) {
      return { status: '503 Service Unavailable', sentence: 'Too many sockets; come back later.' }
    }
    return undefined
  }

  private options(): ServerOptions<Record<string, unknown>, Extra> {
    return {
      connectionInitWaitTimeout: INIT_TIMEOUT_MS,
      onConnect: (connection) => this.onConnect(connection),
      onSubscribe: (connection, _id, payload) => this.onSubscribe(connection, payload),
      context: ({ extra }): RequestContext & { req: IncomingMessage } => ({
        req: extra.request,
        connectionId: extra.connectionId,
        signal: extra.controller.signal,
      }),
      onNext: (_connection, _id, _payload, _args, result) =>
        result.errors ? { ...result, errors: result.errors.map(formatted) } : undefined,
      onError: (_connection, _id, _payload, errors) => errors.map(formatted),
      onClose: ({ extra }) => extra.controller?.abort(),
    }
  }

  private onConnect({ extra }: Connection): Record<string, unknown> {
    extra.connectionId = randomUUID()
    extra.controller = new AbortController()
    this.logger.debug('Connected', { connectionId: extra.connectionId })
    return { connectionId: extra.connectionId, cursor: this.feed.cursorOf(this.feed.head) }
  }

  private onSubscribe({ subscriptions }: Connection, operation: Operation) {
    if (Object.keys(subscriptions).length > MOST_OPERATIONS) {
      return [
        new RateLimited(`A socket may have ${MOST_OPERATIONS} operations at once. Complete some first.`),
      ]
    }
    const { schema } = this.schemaHost
    const document = readDocument(schema, operation)
    if (Array.isArray(document)) return document
    const tooDear = refuseDear(schema, document, operation)
    if (tooDear) return [tooDear]
    const { operationName, variables } = operation
    return { schema, document, operationName, variableValues: variables }
  }
}

// graphql-ws's types want the class; what is sent is its JSON, which this is.
function formatted(error: GraphQLError | GraphQLFormattedError): GraphQLError {
  return forClient(error) as GraphQLError
}

interface Refusal {
  status: string
  sentence: string
}

function refuse(socket: Duplex, { status, sentence }: Refusal): void {
  const body = `${sentence}\n`
  const head = [
    `HTTP/1.1 ${status}`,
    'Content-Type: text/plain; charset=utf-8',
    `Content-Length: ${Buffer.byteLength(body)}`,
    'Connection: close',
  ]
  socket.once('error', () => socket.destroy())
  socket.end(`${head.join('\r\n')}\r\n\r\n${body}`)
}

function close(socket: WebSocket): Promise<void> {
  return new Promise((resolve) => {
    const cutOff = setTimeout(() => socket.terminate(), CLOSE_GRACE_MS)
    socket.once('close', () => {
      clearTimeout(cutOff)
      resolve()
    })
    socket.close(GOING_AWAY.code, GOING_AWAY.reason)
  })
}
