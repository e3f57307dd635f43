import { Injectable } from '@nestjs/common'
import {
  createSourceEventStream,
  type DocumentNode,
  type ExecutionArgs,
  type ExecutionResult,
  execute,
  type GraphQLError,
  type GraphQLFormattedError,
  type GraphQLSchema,
} from 'graphql'
import { type Context, handleProtocols, makeServer, type Server, type ServerOptions } from 'graphql-ws'
import { Authenticator, type Identity, tokenInPayload } from '../auth/authenticator.ts'
import { DatabaseUnavailable } from '../database/database-unavailable.ts'
import { RateLimited, TooLarge, Unauthenticated } from '../errors.ts'
import { EventFeed } from '../events/event-feed.ts'
import { FollowRequest } from '../events/follow-request.ts'
import { forClient } from '../graphql/client-errors.ts'
import { type Operation, refuseDear } from '../graphql/document-limits.ts'
import { AccessWatch, FORBIDDEN, UNAUTHENTICATED } from './access-watch.ts'
import type { Connection } from './connection.ts'
import { Documents, type ReadDocument } from './documents.ts'
import { FanOut } from './fan-out.ts'
import { LiveMetrics } from './live-metrics.ts'

const MOST_OPERATIONS = 100
/** They are kept as long as the subscription is. */
const MOST_VARIABLES_LENGTH = 4_096
/** Subscriptions that need not be weighed again; after so many it begins anew. */
const MOST_WEIGHED = 5_000
const TRY_LATER = 1013

const NOT_LET_IN = 'Sign in, or send a valid token in the payload of connection_init'

/** What graphql-ws executes, and brings back with the result. */
interface PreparedArgs extends ExecutionArgs {
  /** Of a subscription: names the document and the variables that decide what is told. */
  sharedKey?: string | undefined
}

type GraphQLConnection = Context<Record<string, unknown> | undefined, { connection: Connection }>

/**
 * graphql-transport-ws on a connection. graphql-ws keeps the rules and the life of each operation; three of its hooks
 * make subscriptions shared:
 *
 *   onSubscribe ──> the document, parsed and validated once for all who send it
 *   subscribe   ──> runs the resolver for this subscriber, and takes what it wants to follow instead of a stream
 *   onOperation ──> joins those who follow the same; what graphql-ws iterates is the parked member
 */
@Injectable()
export class GraphQLProtocol {
  readonly handleProtocols = handleProtocols
  private readonly documents = new Documents()
  /** What has been found to be cheap enough, by its shared key. */
  private readonly weighed = new Set<string>()
  private server: Server<{ connection: Connection }> | undefined
  private schema: GraphQLSchema | undefined

  constructor(
    private readonly feed: EventFeed,
    private readonly fanOut: FanOut,
    private readonly authenticator: Authenticator,
    private readonly accessWatch: AccessWatch,
    private readonly metrics: LiveMetrics,
  ) {}

  /** To be called once, when the schema has been made. */
  use(schema: GraphQLSchema): void {
    this.schema = schema
    this.server = makeServer(this.options())
  }

  /** Takes over a connection; the returned function is to be called when it has closed. */
  opened(connection: Connection): (code: number, reason: string) => Promise<void> {
    if (!this.server) throw new Error('The protocol is used before there is a schema.')
    return this.server.opened(connection, { connection })
  }

  private options(): ServerOptions<Record<string, unknown>, { connection: Connection }> {
    return {
      // Our own look every second does that, without a timer for each socket.
      connectionInitWaitTimeout: 0,
      onConnect: (context) => this.connect(context),
      onSubscribe: (context, _id, operation) => this.prepare(context, operation),
      context: ({ extra: { connection } }) => connection,
      subscribe: (args) => subscribe(args),
      onOperation: ({ extra }, id, _operation, args, result) =>
        this.share(extra.connection, id, args, result),
      onNext: (_context, _id, _operation, _args, result) =>
        result.errors ? { ...result, errors: result.errors.map(formatted) } : undefined,
      onError: (_context, _id, _operation, errors) => errors.map(formatted),
    }
  }

  /** False: it is not let in, and has been told why. */
  private async connect(context: GraphQLConnection): Promise<Record<string, unknown> | false> {
    const { connection } = context.extra
    connection.isInitialised = true
    const token = tokenInPayload(context.connectionParams)
    // graphql-ws would keep it for as long as the socket is open.
    if (context.connectionParams) Object.assign(context, { connectionParams: undefined })
    const identity = await this.identify(connection, token)
    connection.forgetHeaders()
    if (!identity || !connection.isOpen) return false
    this.accessWatch.join(connection, identity)
    return {
      connectionId: connection.id,
      cursor: this.feed.cursorOf(this.feed.head),
      ...expiry(identity),
    }
  }

  /** A ping that carries a token renews what the socket may do, and for how long; others are answered as they are. */
  async pinged(connection: Connection, payload: Record<string, unknown> | undefined): Promise<void> {
    const token = tokenInPayload(payload)
    const before = connection.identity
    if (token === undefined || !before) return connection.send(JSON.stringify({ type: 'pong', payload }))
    const identity = await this.identify(connection, token)
    if (!identity || !connection.isOpen) return
    if (identity.subject.id !== before.subject.id) {
      connection.close(FORBIDDEN, 'The token is of somebody else; open another socket for it')
      return
    }
    this.accessWatch.renew(connection, identity)
    return connection.send(JSON.stringify({ type: 'pong', payload: expiry(identity) }))
  }

  private async identify(connection: Connection, token: string | undefined): Promise<Identity | undefined> {
    try {
      return await this.authenticator.identify(connection, token)
    } catch (error) {
      if (error instanceof Unauthenticated) connection.close(UNAUTHENTICATED, NOT_LET_IN)
      else if (error instanceof RateLimited || error instanceof DatabaseUnavailable) {
        connection.close(TRY_LATER, 'Cannot tell at the moment who you are; come back with your cursor')
      } else throw error
      return undefined
    }
  }

  private prepare({ subscriptions }: GraphQLConnection, operation: Operation) {
    const { schema } = this
    if (!schema) throw new Error('The protocol is used before there is a schema.')
    if (Object.keys(subscriptions).length > MOST_OPERATIONS) {
      this.metrics.refusals.inc({ reason: 'operations' })
      return [
        new RateLimited(`A socket may have ${MOST_OPERATIONS} operations at once. Complete some first.`),
      ]
    }
    const read = this.documents.read(schema, operation)
    if (Array.isArray(read)) return read
    // graphql-ws keeps the message for as long as the operation lives; let all keep the same text.
    operation.query = read.query
    const { operationName, variables } = operation
    const { document, isSubscription } = read
    const sharedKey = isSubscription ? sharedKeyOf(read, variables) : undefined
    const refusal =
      sharedKey === undefined
        ? refuseDear(schema, document, operation)
        : this.weigh(sharedKey, schema, document, operation)
    return refusal ? [refusal] : { schema, document, operationName, variableValues: variables, sharedKey }
  }

  /** Once for all who want the same. */
  private weigh(
    sharedKey: string,
    schema: GraphQLSchema,
    document: DocumentNode,
    operation: Operation,
  ): GraphQLError | undefined {
    if (this.weighed.has(sharedKey)) return undefined
    if (sharedKey.length > MOST_VARIABLES_LENGTH) {
      return new TooLarge(
        `The variables of a subscription may be ${MOST_VARIABLES_LENGTH} characters long, as JSON. Send less.`,
      )
    }
    const tooDear = refuseDear(schema, document, operation)
    if (tooDear) return tooDear
    if (this.weighed.size >= MOST_WEIGHED) this.weighed.clear()
    this.weighed.add(sharedKey)
    return undefined
  }

  private share(connection: Connection, id: string, args: PreparedArgs, result: unknown) {
    if (!isAsyncIterable(result)) return undefined
    const { sharedKey } = args
    // It would be kept for as long as the subscription is.
    args.sharedKey = undefined
    if (result instanceof FollowRequest && sharedKey !== undefined) {
      const joined = this.fanOut.join(id, { key: sharedKey, args }, result, connection.writer)
      return joined instanceof RateLimited ? { errors: [joined] } : joined
    }
    this.metrics.unshared.inc()
    return eachExecuted(result, args)
  }
}

/** The same for all who want the same, whatever their cursor is. */
function sharedKeyOf({ id, cursorVariable }: ReadDocument, variables: Operation['variables']): string {
  const names = Object.keys(variables ?? {}).filter((name) => name !== cursorVariable)
  return JSON.stringify([id, names.sort().map((name) => [name, variables?.[name]])])
}

/** Runs the resolver for this subscriber. What comes of each event is made elsewhere, once for all. */
async function subscribe(
  args: ExecutionArgs,
): Promise<AsyncIterableIterator<ExecutionResult> | ExecutionResult> {
  // onOperation takes it from here; graphql-ws's types want what graphql's own subscribe would return.
  return (await createSourceEventStream(args)) as AsyncIterableIterator<ExecutionResult> | ExecutionResult
}

/** The ordinary way, for what cannot be shared: an execution for each event of each subscriber. */
async function* eachExecuted(
  source: AsyncIterable<unknown>,
  args: ExecutionArgs,
): AsyncGenerator<ExecutionResult, void> {
  for await (const event of source) yield await execute({ ...args, rootValue: event })
}

function isAsyncIterable(value: unknown): value is AsyncIterable<unknown> {
  return typeof value === 'object' && value !== null && Symbol.asyncIterator in value
}

function expiry({ credential }: Identity): { expiresAt?: string } {
  return credential ? { expiresAt: credential.expiresAt.toISOString() } : {}
}

// graphql-ws's types want the class; what is sent is its JSON, which this is.
function formatted(error: GraphQLError | GraphQLFormattedError): GraphQLError {
  return forClient(error) as GraphQLError
}
