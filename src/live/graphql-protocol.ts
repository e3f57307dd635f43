import { Injectable, Logger, type OnApplicationBootstrap } from '@nestjs/common'
import { GraphQLSchemaHost } from '@nestjs/graphql'
import { createSourceEventStream, type ExecutionResult, type GraphQLSchema } from 'graphql'
import {
  CloseCode,
  type ConnectionInitMessage,
  type Message,
  MessageType,
  type PingMessage,
  parseMessage,
  type SubscribeMessage,
  type SubscribePayload,
} from 'graphql-ws'
import { Authenticator, type Identity, tokenFromPayload } from '../auth/credentials/authenticator.ts'
import {
  CLOSE_FORBIDDEN,
  CLOSE_UNAUTHENTICATED,
  SessionMonitor,
} from '../auth/credentials/session-monitor.ts'
import { RateLimiter } from '../auth/rate-limiter.ts'
import { DatabaseUnavailableError } from '../database/errors.ts'
import { BadUserInputError, RateLimitedError, TooLargeError, UnauthenticatedError } from '../errors.ts'
import { EventFeed } from '../events/event-feed.ts'
import { toClientError, toClientResult } from '../graphql/error-formatting.ts'
import { JsonLimits } from '../graphql/json-limits.ts'
import {
  checkComplexity,
  executeFairly,
  type PreparedArgs,
  prepareOperation,
} from '../graphql/prepare-operation.ts'
import type { Connection } from './connection.ts'
import { DocumentCache, InvalidDocumentError } from './document-cache.ts'
import { checkSubscriptionFields, FanOut, type SharedOperation } from './fan-out.ts'
import { LiveMetrics } from './live-metrics.ts'
import { eventSchema, type NormalForm, normalValues } from './normal-form.ts'

const MAX_OPERATIONS = 100
/** In characters of JSON. Variables are kept for as long as the subscription. */
const MAX_VARIABLES_LENGTH = 4_096
/** Its payload is sent back, whether or not the client reads it. */
const MAX_PONG_LENGTH = 4_096
/** Subscriptions known to be cheap enough; beyond this many, they are forgotten and checked again. */
const MAX_COST_CHECKED = 5_000
const CLOSE_TRY_AGAIN_LATER = 1013
/** An operation id is kept, and is part of every frame. */
const MAX_ID_LENGTH = 256
/** Of an operation id in a close reason, which has 123 bytes (RFC 6455, section 5.5). */
const QUOTED_ID_LENGTH = 30

/** Also for messages that only servers send. */
const INVALID_MESSAGE = 'Invalid message received'
const AUTHENTICATION_REQUIRED = 'Sign in, or send a valid token in the payload of connection_init'
const AUTHENTICATION_UNAVAILABLE = 'Authentication temporarily unavailable; reconnect with your last cursor'

/** An operation that is valid and within its limits. */
interface PreparedRequest {
  args: PreparedArgs
  cost: number
  /** For subscriptions only. */
  sharedOperation: SharedOperation | undefined
}

/**
 * The server side of graphql-transport-ws: handles each message of a client. A subscription takes three
 * steps:
 *
 *   prepare    the document is parsed, validated and checked, once for all clients that send it
 *   execute    the resolver runs for this subscriber: it authorises the request, and returns what to follow
 *   subscribe  from here on the fan-out sends the events
 *
 * Not a library, because a library creates a separate event stream for every subscriber. Messages, their
 * validation and the close codes are those of graphql-ws, whose client the page and the tests use.
 */
@Injectable()
export class GraphQLProtocol implements OnApplicationBootstrap {
  private readonly logger = new Logger(GraphQLProtocol.name)
  /** Keys of shared operations that are known to be cheap enough. */
  private readonly costChecked = new Set<string>()

  constructor(
    private readonly schemaHost: GraphQLSchemaHost,
    private readonly documentCache: DocumentCache,
    private readonly feed: EventFeed,
    private readonly fanOut: FanOut,
    private readonly authenticator: Authenticator,
    private readonly sessionMonitor: SessionMonitor,
    private readonly rateLimiter: RateLimiter,
    private readonly metrics: LiveMetrics,
  ) {}

  onApplicationBootstrap(): void {
    checkSubscriptionFields(this.schemaHost.schema)
  }

  /** Rejects if handling the message itself fails; errors of an operation are sent to the client. */
  handleMessage(connection: Connection, data: Buffer): Promise<void> | undefined {
    let message: Message
    try {
      new JsonLimits().check(data)
      message = parseMessage(String(data))
    } catch (error) {
      connection.close(CloseCode.BadRequest, error instanceof TooLargeError ? error.message : INVALID_MESSAGE)
      return undefined
    }
    switch (message.type) {
      case MessageType.ConnectionInit:
        return this.connectionInit(connection, message)
      case MessageType.Subscribe:
        return this.subscribe(connection, message)
      case MessageType.Complete:
        connection.onComplete(message.id)
        return undefined
      case MessageType.Ping:
        return this.ping(connection, message)
      case MessageType.Pong:
        return undefined
      default:
        connection.close(CloseCode.BadRequest, INVALID_MESSAGE)
        return undefined
    }
  }

  /** Ends an operation with errors. */
  error(connection: Connection, id: string, errors: readonly unknown[]): Promise<void> {
    connection.operations.delete(id)
    const payload = errors.map((error) => toClientError(error))
    return connection.send(JSON.stringify({ id, type: MessageType.Error, payload }))
  }

  /** Ends a query, a mutation, or a subscription that was refused, with its only result. */
  private nextAndComplete(connection: Connection, id: string, result: ExecutionResult): Promise<void> {
    connection.operations.delete(id)
    const payload = toClientResult(result)
    void connection.send(JSON.stringify({ id, type: MessageType.Next, payload }))
    return connection.send(JSON.stringify({ id, type: MessageType.Complete }))
  }

  private async connectionInit(connection: Connection, { payload }: ConnectionInitMessage): Promise<void> {
    if (connection.isInitialised) {
      connection.close(CloseCode.TooManyInitialisationRequests, 'Too many initialisation requests')
      return
    }
    connection.isInitialised = true
    const identity = await this.authenticate(connection, tokenFromPayload(payload))
    if (!identity || !connection.completeAuthentication(identity.subject)) return
    this.sessionMonitor.watch(connection, identity)
    const cursor = this.feed.cursorOf(this.feed.head)
    const ack = { connectionId: connection.id, cursor, ...expiry(identity) }
    await connection.send(JSON.stringify({ type: MessageType.ConnectionAck, payload: ack }))
  }

  /** A ping with a token renews the session of the socket. The payload of any other ping is sent back. */
  private async ping(connection: Connection, { payload }: PingMessage): Promise<void> {
    const token = tokenFromPayload(payload)
    const current = connection.identity
    if (token === undefined || !current) {
      const message = pongMessage(payload)
      if (message.length <= MAX_PONG_LENGTH) return connection.send(message)
      connection.close(CloseCode.BadRequest, `Ping payload exceeds ${MAX_PONG_LENGTH} characters`)
      return
    }
    const identity = await this.authenticate(connection, token)
    if (!identity || !connection.isOpen) return
    if (identity.subject.id !== current.subject.id) {
      connection.close(CLOSE_FORBIDDEN, 'Token belongs to a different subject; open a new connection')
      return
    }
    this.sessionMonitor.renew(connection, identity)
    await connection.send(pongMessage(expiry(identity)))
  }

  /** Closes the socket if it does not return an identity. */
  private async authenticate(
    connection: Connection,
    token: string | undefined,
  ): Promise<Identity | undefined> {
    try {
      return await this.authenticator.authenticate(connection, token)
    } catch (error) {
      if (error instanceof UnauthenticatedError) {
        connection.close(CLOSE_UNAUTHENTICATED, AUTHENTICATION_REQUIRED)
        return undefined
      }
      if (!(error instanceof RateLimitedError || error instanceof DatabaseUnavailableError)) {
        this.logger.error('Authentication failed unexpectedly', { connectionId: connection.id, error })
      }
      connection.close(CLOSE_TRY_AGAIN_LATER, AUTHENTICATION_UNAVAILABLE)
      return undefined
    }
  }

  private async subscribe(connection: Connection, { id, payload }: SubscribeMessage): Promise<void> {
    const { operations } = connection
    if (!connection.identity) {
      connection.close(CloseCode.Unauthorized, 'Unauthorized')
      return
    }
    if (id.length > MAX_ID_LENGTH) {
      connection.close(CloseCode.BadRequest, `Operation id exceeds ${MAX_ID_LENGTH} characters`)
      return
    }
    if (operations.has(id)) {
      const quotedId = id.slice(0, QUOTED_ID_LENGTH)
      connection.close(CloseCode.SubscriberAlreadyExists, `Subscriber for ${quotedId} already exists`)
      return
    }
    const reservation = { end: () => undefined }
    operations.set(id, reservation)
    connection.executingCount++
    try {
      const prepared = this.prepare(connection, payload)
      const result = await this.execute(connection, prepared)
      // Otherwise the client has completed it, or the socket has closed; the id may now belong to another
      // operation.
      if (operations.get(id) === reservation) await this.deliver(connection, id, prepared, result)
    } catch (error) {
      if (operations.get(id) === reservation) await this.refuse(connection, id, error)
      else this.logger.error('A completed operation failed', { connectionId: connection.id, error })
    } finally {
      connection.executingCount--
    }
  }

  /** @throws InvalidDocumentError, BadUserInputError, TooLargeError, RateLimitedError */
  private prepare(connection: Connection, payload: SubscribePayload): PreparedRequest {
    if (Math.max(connection.operations.size, connection.executingCount) > MAX_OPERATIONS) {
      this.metrics.refusals.inc({ reason: 'operations' })
      throw new RateLimitedError(
        `This socket already has ${MAX_OPERATIONS} operations. Complete some before you start others.`,
      )
    }
    const { schema } = this.schemaHost
    const { document, operation, normalForm } = this.documentCache.get(schema, payload)
    const args = prepareOperation(schema, document, operation, payload.variables)
    if (!normalForm) {
      const cost = checkComplexity(args)
      this.rateLimiter.countCost(connection.subject, cost)
      return { args, cost, sharedOperation: undefined }
    }
    if (JSON.stringify(args.variableValues).length > MAX_VARIABLES_LENGTH) {
      throw new TooLargeError(
        `The variables of a subscription are limited to ${MAX_VARIABLES_LENGTH} characters of JSON. Send fewer or shorter values.`,
      )
    }
    const sharedOperation = toSharedOperation(schema, normalForm, args)
    this.checkComplexityOnce(sharedOperation.key, args)
    return { args, cost: 0, sharedOperation }
  }

  /** Once for all subscribers. @throws TooLargeError */
  private checkComplexityOnce(key: string, args: PreparedArgs): void {
    if (this.costChecked.has(key)) return
    checkComplexity(args)
    if (this.costChecked.size >= MAX_COST_CHECKED) this.costChecked.clear()
    this.costChecked.add(key)
  }

  /** Returns the result; for a subscription, what its resolver returns, or why it refuses. */
  private execute(
    connection: Connection,
    { args, cost, sharedOperation }: PreparedRequest,
  ): Promise<AsyncIterable<unknown> | ExecutionResult> {
    const contextArgs = { ...args, contextValue: connection }
    return sharedOperation ? createSourceEventStream(contextArgs) : executeFairly(contextArgs, cost)
  }

  /** @throws RateLimitedError */
  private deliver(
    connection: Connection,
    id: string,
    { sharedOperation }: PreparedRequest,
    result: AsyncIterable<unknown> | ExecutionResult,
  ): Promise<void> | undefined {
    if (!(Symbol.asyncIterator in result)) return this.nextAndComplete(connection, id, result)
    if (!sharedOperation) throw new Error('Only subscriptions have an event stream.')
    const subscriber = this.fanOut.subscribe(id, sharedOperation, result, connection)
    connection.operations.set(id, subscriber)
    subscriber.start()
    return undefined
  }

  /** Invalid variables are reported in a result, like errors of resolvers; everything else in an error. */
  private refuse(connection: Connection, id: string, error: unknown): Promise<void> {
    if (error instanceof BadUserInputError) return this.nextAndComplete(connection, id, { errors: [error] })
    return this.error(connection, id, error instanceof InvalidDocumentError ? error.errors : [error])
  }
}

/** The same for all subscribers that can share it, whatever their cursors. */
function toSharedOperation(schema: GraphQLSchema, normal: NormalForm, args: PreparedArgs): SharedOperation {
  const variableValues = normalValues(normal, args.variableValues)
  const key = `${normal.key} ${JSON.stringify(variableValues)}`
  return { key, args: { schema: eventSchema(schema), document: normal.document, variableValues } }
}

function expiry({ credential }: Identity): { expiresAt?: string } {
  return credential ? { expiresAt: credential.expiresAt.toISOString() } : {}
}

function pongMessage(payload: PingMessage['payload']): string {
  return JSON.stringify({ type: MessageType.Pong, payload })
}
