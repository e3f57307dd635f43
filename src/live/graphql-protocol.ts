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
import { AccessWatch, FORBIDDEN, UNAUTHENTICATED } from '../auth/credentials/access-watch.ts'
import { Authenticator, type Identity, tokenInPayload } from '../auth/credentials/authenticator.ts'
import { Limits } from '../auth/limits.ts'
import { DatabaseUnavailable } from '../database/database-errors.ts'
import { BadUserInput, RateLimited, TooLarge, Unauthenticated } from '../errors.ts'
import { EventFeed } from '../events/event-feed.ts'
import { FollowRequest } from '../events/follower.ts'
import { executeInTurn } from '../graphql/execute-in-turn.ts'
import { type PreparedArgs, prepareOperation, weigh } from '../graphql/prepare-operation.ts'
import { type Connection, NOT_UNDERSTOOD } from './connection.ts'
import { Documents } from './documents.ts'
import { FanOut, type Shared } from './fan-out.ts'
import { LiveMetrics } from './live-metrics.ts'
import { type NormalForm, normalValues } from './normal-form.ts'
import { OwnStream, stop } from './own-stream.ts'

const MOST_OPERATIONS = 100
/** They are kept as long as the subscription is. */
const MOST_VARIABLES_LENGTH = 4_096
/** Its payload is sent back, whether or not the client reads it. */
const MAX_PONG_LENGTH = 4_096
/** Subscriptions that need not be weighed again; after so many it begins anew. */
const MOST_WEIGHED = 5_000
const TRY_LATER = 1013
/** An id is kept, and part of each frame. */
const MOST_ID_LENGTH = 256
/** Of an id, in the reason of a close, which has 123 bytes (RFC 6455, section 5.5). */
const SHOWN_ID_LENGTH = 30

const NOTHING = () => undefined
const NOT_LET_IN = 'Sign in, or send a valid token in the payload of connection_init'

/** What is wanted, when it may be had. */
interface Prepared {
  args: PreparedArgs
  cost: number
  /** Of a subscription: what is executed for all who want the same. */
  shared: Shared | undefined
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
  private readonly documents = new Documents()
  /** What has been found to be cheap enough, by its shared key. */
  private readonly weighed = new Set<string>()
  private schema: GraphQLSchema | undefined

  constructor(
    private readonly feed: EventFeed,
    private readonly fanOut: FanOut,
    private readonly authenticator: Authenticator,
    private readonly accessWatch: AccessWatch,
    private readonly limits: Limits,
    private readonly metrics: LiveMetrics,
  ) {}

  /** To be called once, when the schema has been made. */
  use(schema: GraphQLSchema): void {
    this.schema = schema
  }

  /** Rejects when something went wrong that is no operation's fault. */
  receive(connection: Connection, message: Message): Promise<void> | undefined {
    switch (message.type) {
      case MessageType.ConnectionInit:
        return this.initialise(connection, message.payload)
      case MessageType.Subscribe:
        return this.begin(connection, message)
      case MessageType.Complete:
        connection.complete(message.id)
        return undefined
      case MessageType.Ping:
        return this.answerPing(connection, message.payload)
      case MessageType.Pong:
        return undefined
      default:
        connection.close(CloseCode.BadRequest, NOT_UNDERSTOOD)
        return undefined
    }
  }

  private async initialise(connection: Connection, payload: ConnectionInitMessage['payload']): Promise<void> {
    if (connection.isInitialised) {
      connection.close(CloseCode.TooManyInitialisationRequests, 'Too many initialisation requests')
      return
    }
    connection.isInitialised = true
    const identity = await this.identify(connection, tokenInPayload(payload))
    connection.forgetHeaders()
    if (!identity || !connection.isOpen || !connection.owner.identified(connection, identity.subject)) return
    this.accessWatch.join(connection, identity)
    const cursor = this.feed.cursorOf(this.feed.head)
    const acknowledged = { connectionId: connection.id, cursor, ...expiry(identity) }
    await connection.send(JSON.stringify({ type: MessageType.ConnectionAck, payload: acknowledged }))
  }

  /** A ping that carries a token renews what the socket may do, and for how long; others are answered as they are. */
  private async answerPing(connection: Connection, payload: PingMessage['payload']): Promise<void> {
    const token = tokenInPayload(payload)
    const before = connection.identity
    if (token === undefined || !before) {
      const answer = pong(payload)
      if (answer.length <= MAX_PONG_LENGTH) return connection.send(answer)
      connection.close(CloseCode.BadRequest, `A ping may be ${MAX_PONG_LENGTH} characters long`)
      return
    }
    const identity = await this.identify(connection, token)
    if (!identity || !connection.isOpen) return
    if (identity.subject.id !== before.subject.id) {
      connection.close(FORBIDDEN, 'The token is of somebody else; open another socket for it')
      return
    }
    this.accessWatch.renew(connection, identity)
    await connection.send(pong(expiry(identity)))
  }

  private async identify(connection: Connection, token: string | undefined): Promise<Identity | undefined> {
    try {
      return await this.authenticator.identify(connection, token)
    } catch (error) {
      if (error instanceof Unauthenticated) {
        connection.close(UNAUTHENTICATED, NOT_LET_IN)
        return undefined
      }
      if (!(error instanceof RateLimited || error instanceof DatabaseUnavailable)) {
        this.logger.error('Could not tell who somebody is', { connectionId: connection.id, error })
      }
      connection.close(TRY_LATER, 'Cannot tell at the moment who you are; come back with your cursor')
      return undefined
    }
  }

  private async begin(connection: Connection, { id, payload }: SubscribeMessage): Promise<void> {
    const { operations } = connection
    if (!connection.identity) {
      connection.close(CloseCode.Unauthorized, 'Unauthorized')
      return
    }
    if (id.length > MOST_ID_LENGTH) {
      connection.close(
        CloseCode.BadRequest,
        `The id of an operation may be ${MOST_ID_LENGTH} characters long`,
      )
      return
    }
    if (operations.has(id)) {
      const shown = id.slice(0, SHOWN_ID_LENGTH)
      connection.close(CloseCode.SubscriberAlreadyExists, `Subscriber for ${shown} already exists`)
      return
    }
    const place = { end: NOTHING }
    operations.set(id, place)
    connection.executing++
    try {
      const prepared = this.prepare(connection, payload)
      if (Array.isArray(prepared)) return await connection.fail(id, prepared)
      const result = await this.resultOf(connection, prepared)
      // It has been completed meanwhile, or the socket has closed; the id may be another operation's by now.
      if (operations.get(id) === place) await this.goOn(connection, id, prepared, result)
      else if (isStream(result)) void stop(result[Symbol.asyncIterator]())
    } catch (error) {
      if (operations.get(id) === place) await this.refuse(connection, id, error)
      else
        this.logger.error('What nobody waits for any more has failed', { connectionId: connection.id, error })
    } finally {
      connection.executing--
    }
  }

  /** Faulty variables are told as a result, as graphql's own execution does it. */
  private refuse(connection: Connection, id: string, error: unknown): Promise<void> {
    if (error instanceof BadUserInput) return connection.answer(id, { errors: [error] })
    return connection.fail(id, [error])
  }

  /** What was begun is answered, or is a stream from now on. */
  private goOn(connection: Connection, id: string, { args, shared }: Prepared, result: Result) {
    if (!isStream(result)) return connection.answer(id, result)
    if (!(result instanceof FollowRequest) || !shared) {
      this.metrics.unshared.inc()
      const contextArgs = { ...args, contextValue: connection }
      return new OwnStream(connection, id, result[Symbol.asyncIterator](), contextArgs).run()
    }
    const member = this.fanOut.join(id, shared, result, connection)
    if (member instanceof RateLimited) return connection.fail(id, [member])
    connection.operations.set(id, member)
    member.begin()
    return undefined
  }

  /** Of a subscription: the stream that its resolver returns, unless something is wrong. */
  private resultOf(connection: Connection, { args, cost, shared }: Prepared): Result | Promise<Result> {
    const contextArgs = { ...args, contextValue: connection }
    return shared ? createSourceEventStream(contextArgs) : executeInTurn(contextArgs, cost)
  }

  /** @throws BadUserInput, TooLarge, RateLimited */
  private prepare(connection: Connection, request: SubscribePayload): Prepared | GraphQLError[] {
    const { schema } = this
    if (!schema) throw new Error('The protocol is used before there is a schema.')
    if (Math.max(connection.operations.size, connection.executing) > MOST_OPERATIONS) {
      this.metrics.refusals.inc({ reason: 'operations' })
      throw new RateLimited(`A socket may have ${MOST_OPERATIONS} operations at once. Complete some first.`)
    }
    const read = this.documents.read(schema, request)
    if (Array.isArray(read)) return read
    const args = prepareOperation(schema, read.document, read.operation, request.variables)
    if (!read.normal) {
      const cost = weigh(args)
      this.limits.countCost(connection.subject, cost)
      return { args, cost, shared: undefined }
    }
    if (JSON.stringify(args.variableValues).length > MOST_VARIABLES_LENGTH) {
      throw new TooLarge(
        `The variables of a subscription may be ${MOST_VARIABLES_LENGTH} characters long, as JSON. Send less.`,
      )
    }
    const shared = sharedBy(schema, read.normal, args)
    this.weighOnce(shared.key, args)
    return { args, cost: 0, shared }
  }

  /** For all who want the same. @throws TooLarge */
  private weighOnce(sharedKey: string, args: PreparedArgs): void {
    if (this.weighed.has(sharedKey)) return
    weigh(args)
    if (this.weighed.size >= MOST_WEIGHED) this.weighed.clear()
    this.weighed.add(sharedKey)
  }
}

/** The same for all who want the same, whatever their cursor is. */
function sharedBy(schema: GraphQLSchema, normal: NormalForm, args: PreparedArgs): Shared {
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
