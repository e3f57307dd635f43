import { Injectable, Logger } from '@nestjs/common'
import { createSourceEventStream, type ExecutionResult, type GraphQLError, type GraphQLSchema } from 'graphql'
import {
  CloseCode,
  type ConnectionInitMessage,
  type Message,
  MessageType,
  type PingMessage,
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
import { EventStream } from '../events/event-stream.ts'
import { executeFairly } from '../graphql/execute-fairly.ts'
import { checkComplexity, type PreparedArgs, prepareOperation } from '../graphql/prepare-operation.ts'
import { type Connection, INVALID_MESSAGE_REASON } from './connection.ts'
import { DocumentCache } from './document-cache.ts'
import { FanOut, type SharedOperation } from './fan-out.ts'
import { LiveMetrics } from './live-metrics.ts'
import { type NormalForm, normalValues } from './normal-form.ts'
import { stopIterator, UnsharedSubscription } from './unshared-subscription.ts'

const MAX_OPERATIONS = 100
/** They are kept as long as the subscription is. */
const MAX_VARIABLES_LENGTH = 4_096
/** Its payload is sent back, whether or not the client reads it. */
const MAX_PONG_LENGTH = 4_096
/** Subscriptions that need not be weighed again; after so many it begins anew. */
const MAX_COST_CHECKED = 5_000
const CLOSE_TRY_AGAIN_LATER = 1013
/** An id is kept, and part of each frame. */
const MAX_ID_LENGTH = 256
/** Of an id, in the reason of a close, which has 123 bytes (RFC 6455, section 5.5). */
const QUOTED_ID_LENGTH = 30

const NOOP = () => undefined
const AUTHENTICATION_REQUIRED = 'Sign in, or send a valid token in the payload of connection_init'

/** What is wanted, when it may be had. */
interface PreparedRequest {
  args: PreparedArgs
  cost: number
  /** Of a subscription: what is executed for all who want the same. */
  sharedOperation: SharedOperation | undefined
}

type Result = AsyncIterable<unknown> | ExecutionResult

/**
 * graphql-transport-ws, the server's side: what each message of a client leads to. A subscription becomes a member of
 * those who want the same:
 *
 *   read     the document, parsed, validated and weighed once for all who send it
 *   resolve  the resolver runs for this subscriber, and says what it wants to follow
 *   join     from here on frames come from the fan-out
 *
 * It is ours, and not a library's, since a library's subscription is a stream of each subscriber's own. Of graphql-ws are
 * the messages, what makes one valid, and the codes; its client is what the tests and the page come with.
 */
@Injectable()
export class GraphQLProtocol {
  private readonly logger = new Logger(GraphQLProtocol.name)
  private readonly documentCache = new DocumentCache()
  /** What has been found to be cheap enough, by its shared key. */
  private readonly costChecked = new Set<string>()
  private schema: GraphQLSchema | undefined

  constructor(
    private readonly feed: EventFeed,
    private readonly fanOut: FanOut,
    private readonly authenticator: Authenticator,
    private readonly sessionMonitor: SessionMonitor,
    private readonly rateLimiter: RateLimiter,
    private readonly metrics: LiveMetrics,
  ) {}

  /** To be called once, when the schema has been made. */
  setSchema(schema: GraphQLSchema): void {
    this.schema = schema
  }

  /** Rejects when something went wrong that is no operation's fault. */
  handleMessage(connection: Connection, message: Message): Promise<void> | undefined {
    switch (message.type) {
      case MessageType.ConnectionInit:
        return this.initialise(connection, message.payload)
      case MessageType.Subscribe:
        return this.subscribe(connection, message)
      case MessageType.Complete:
        connection.onComplete(message.id)
        return undefined
      case MessageType.Ping:
        return this.answerPing(connection, message.payload)
      case MessageType.Pong:
        return undefined
      default:
        connection.close(CloseCode.BadRequest, INVALID_MESSAGE_REASON)
        return undefined
    }
  }

  private async initialise(connection: Connection, payload: ConnectionInitMessage['payload']): Promise<void> {
    if (connection.isInitialised) {
      connection.close(CloseCode.TooManyInitialisationRequests, 'Too many initialisation requests')
      return
    }
    connection.isInitialised = true
    const identity = await this.authenticate(connection, tokenFromPayload(payload))
    connection.forgetHeaders()
    if (!identity || !connection.isOpen || !connection.listener.onAuthenticated(connection, identity.subject))
      return
    this.sessionMonitor.watch(connection, identity)
    const cursor = this.feed.cursorOf(this.feed.head)
    const acknowledged = { connectionId: connection.id, cursor, ...expiry(identity) }
    await connection.send(JSON.stringify({ type: MessageType.ConnectionAck, payload: acknowledged }))
  }

  /** A ping that carries a token renews what the socket may do, and for how long; others are answered as they are. */
  private async answerPing(connection: Connection, payload: PingMessage['payload']): Promise<void> {
    const token = tokenFromPayload(payload)
    const before = connection.identity
    if (token === undefined || !before) {
      const answer = pong(payload)
      if (answer.length <= MAX_PONG_LENGTH) return connection.send(answer)
      connection.close(CloseCode.BadRequest, `A ping may be ${MAX_PONG_LENGTH} characters long`)
      return
    }
    const identity = await this.authenticate(connection, token)
    if (!identity || !connection.isOpen) return
    if (identity.subject.id !== before.subject.id) {
      connection.close(CLOSE_FORBIDDEN, 'The token is of somebody else; open another socket for it')
      return
    }
    this.sessionMonitor.renew(connection, identity)
    await connection.send(pong(expiry(identity)))
  }

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
        this.logger.error('Could not tell who somebody is', { connectionId: connection.id, error })
      }
      connection.close(
        CLOSE_TRY_AGAIN_LATER,
        'Cannot tell at the moment who you are; come back with your cursor',
      )
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
      connection.close(CloseCode.BadRequest, `The id of an operation may be ${MAX_ID_LENGTH} characters long`)
      return
    }
    if (operations.has(id)) {
      const shown = id.slice(0, QUOTED_ID_LENGTH)
      connection.close(CloseCode.SubscriberAlreadyExists, `Subscriber for ${shown} already exists`)
      return
    }
    const place = { end: NOOP }
    operations.set(id, place)
    connection.executingCount++
    try {
      const prepared = this.prepare(connection, payload)
      if (Array.isArray(prepared)) return await connection.sendError(id, prepared)
      const result = await this.execute(connection, prepared)
      // It has been completed meanwhile, or the socket has closed; the id may be another operation's by now.
      if (operations.get(id) === place) await this.deliver(connection, id, prepared, result)
      else if (isStream(result)) void stopIterator(result[Symbol.asyncIterator]())
    } catch (error) {
      if (operations.get(id) === place) await this.sendFailure(connection, id, error)
      else
        this.logger.error('What nobody waits for any more has failed', { connectionId: connection.id, error })
    } finally {
      connection.executingCount--
    }
  }

  /** Faulty variables are told as a result, as graphql's own execution does it. */
  private sendFailure(connection: Connection, id: string, error: unknown): Promise<void> {
    if (error instanceof BadUserInputError) return connection.sendNextAndComplete(id, { errors: [error] })
    return connection.sendError(id, [error])
  }

  /** What was begun is answered, or is a stream from now on. */
  private deliver(
    connection: Connection,
    id: string,
    { args, sharedOperation: shared }: PreparedRequest,
    result: Result,
  ) {
    if (!isStream(result)) return connection.sendNextAndComplete(id, result)
    if (!(result instanceof EventStream) || !shared) {
      this.metrics.unshared.inc()
      const contextArgs = { ...args, contextValue: connection }
      return new UnsharedSubscription(connection, id, result[Symbol.asyncIterator](), contextArgs).run()
    }
    const member = this.fanOut.subscribe(id, shared, result, connection)
    if (member instanceof RateLimitedError) return connection.sendError(id, [member])
    connection.operations.set(id, member)
    member.startDelivery()
    return undefined
  }

  /** Of a subscription: the stream that its resolver returns, unless something is wrong. */
  private execute(
    connection: Connection,
    { args, cost, sharedOperation: shared }: PreparedRequest,
  ): Result | Promise<Result> {
    const contextArgs = { ...args, contextValue: connection }
    return shared ? createSourceEventStream(contextArgs) : executeFairly(contextArgs, cost)
  }

  /** @throws BadUserInput, TooLarge, RateLimited */
  private prepare(connection: Connection, request: SubscribePayload): PreparedRequest | GraphQLError[] {
    const { schema } = this
    if (!schema) throw new Error('The protocol is used before there is a schema.')
    if (Math.max(connection.operations.size, connection.executingCount) > MAX_OPERATIONS) {
      this.metrics.refusals.inc({ reason: 'operations' })
      throw new RateLimitedError(
        `A socket may have ${MAX_OPERATIONS} operations at once. Complete some first.`,
      )
    }
    const read = this.documentCache.get(schema, request)
    if (Array.isArray(read)) return read
    const args = prepareOperation(schema, read.document, read.operation, request.variables)
    if (!read.normal) {
      const cost = checkComplexity(args)
      this.rateLimiter.countCost(connection.subject, cost)
      return { args, cost, sharedOperation: undefined }
    }
    if (JSON.stringify(args.variableValues).length > MAX_VARIABLES_LENGTH) {
      throw new TooLargeError(
        `The variables of a subscription may be ${MAX_VARIABLES_LENGTH} characters long, as JSON. Send less.`,
      )
    }
    const shared = toSharedOperation(schema, read.normal, args)
    this.checkComplexityOnce(shared.key, args)
    return { args, cost: 0, sharedOperation: shared }
  }

  /** For all who want the same. @throws TooLarge */
  private checkComplexityOnce(sharedKey: string, args: PreparedArgs): void {
    if (this.costChecked.has(sharedKey)) return
    checkComplexity(args)
    if (this.costChecked.size >= MAX_COST_CHECKED) this.costChecked.clear()
    this.costChecked.add(sharedKey)
  }
}

/** The same for all who want the same, whatever their cursor is. */
function toSharedOperation(schema: GraphQLSchema, normal: NormalForm, args: PreparedArgs): SharedOperation {
  const variableValues = normalValues(normal, args.variableValues)
  const key = `${normal.key} ${JSON.stringify(variableValues)}`
  return { key, args: { schema, document: normal.document, variableValues } }
}

function isStream(result: Result): result is AsyncIterable<unknown> {
  return Symbol.asyncIterator in result
}

function expiry({ credential }: Identity): { expiresAt?: string } {
  return credential ? { expiresAt: credential.expiresAt.toISOString() } : {}
}

function pong(payload: PingMessage['payload']): string {
  return JSON.stringify({ type: MessageType.Pong, payload })
}
