import type { ApolloServerPlugin, HTTPGraphQLHead } from '@apollo/server'
import { ApolloDriver, type ApolloDriverConfig } from '@nestjs/apollo'
import { Module } from '@nestjs/common'
import { GraphQLModule } from '@nestjs/graphql'
import type { Request, Response } from 'express'
import { GraphQLError, OperationTypeNode } from 'graphql'
import { validate as isUuid } from 'uuid'
import { AuthModule } from '../auth/auth.module.ts'
import { principalOf, type RequestContext } from '../auth/principal.ts'
import { RateLimiter } from '../auth/rate-limiter.ts'
import { RateLimitedError } from '../errors.ts'
import { checkDepth, MAX_DOCUMENT_TOKENS, MAX_VALIDATION_ERRORS } from '../graphql/document-limits.ts'
import { toClientError, toClientResult } from '../graphql/error-formatting.ts'
import {
  checkComplexity,
  executeFairly,
  operationNotFound,
  type PreparedArgs,
  prepareOperation,
} from '../graphql/prepare-operation.ts'
import { describeRootTypes } from '../graphql/root-types.ts'
import { requestScheduler } from '../runtime/fair-scheduler.ts'

/** GraphQL over HTTP: `/graphql`. Subscriptions have their own server, in `live/`. */
@Module({
  imports: [
    GraphQLModule.forRootAsync<ApolloDriverConfig>({
      driver: ApolloDriver,
      imports: [AuthModule],
      inject: [RateLimiter],
      useFactory: graphqlOptions,
    }),
  ],
  exports: [GraphQLModule],
})
export class GraphQLHttpModule {}

function graphqlOptions(rateLimiter: RateLimiter): ApolloDriverConfig {
  return {
    path: '/graphql',
    autoSchemaFile: true,
    transformSchema: describeRootTypes,
    graphiql: false,
    introspection: true,
    persistedQueries: false,
    // The OriginPolicy prevents CSRF, and lets programs send queries by GET.
    csrfPrevention: false,
    includeStacktraceInErrorResponses: false,
    parseOptions: { maxTokens: MAX_DOCUMENT_TOKENS },
    validationOptions: { maxErrors: MAX_VALIDATION_ERRORS },
    context: async ({ req, res }: { req: Request; res: Response }) => {
      const principal = principalOf(req)
      // Parsing and validating a document, which Apollo does next, may take long.
      await requestScheduler.waitForTurn(principal.subject.id)
      const connection = { connectionId: connectionIdOf(req), signal: abortOnClose(res) }
      return { req, ...principal, ...connection } satisfies RequestContext & { req: Request }
    },
    formatError: ({ extensions }, error) => toClientError(error, extensions?.code),
    plugins: [executionPlugin(rateLimiter)],
    // Sockets and the runner stop first.
    stopOnApplicationShutdown: true,
  }
}

/** Executes the document that Apollo has parsed and validated, in the same way as the socket. */
function executionPlugin(rateLimiter: RateLimiter): ApolloServerPlugin<RequestContext> {
  return {
    async requestDidStart({ schema, request, contextValue }) {
      // An empty name counts as absent, as on the socket.
      if (request.operationName === '') request.operationName = undefined
      let args: PreparedArgs
      let cost = 0
      return {
        // The only hook whose errors Apollo passes on.
        async didResolveOperation({ document, operation, response }) {
          if (!operation) throw badRequest(operationNotFound())
          if (operation.operation === OperationTypeNode.SUBSCRIPTION) throw badRequest(subscriptionOverHttp())
          const tooDeep = checkDepth(schema, document)
          if (tooDeep) throw badRequest(tooDeep)
          try {
            args = prepareOperation(schema, document, operation, request.variables)
            cost = checkComplexity(args)
            rateLimiter.countCost(contextValue.subject, cost)
          } catch (error) {
            if (error instanceof RateLimitedError) setRetryAfter(response.http, error)
            throw error instanceof GraphQLError ? badRequest(error) : error
          }
          await requestScheduler.yieldIfBusy(contextValue.subject.id)
        },
        // Apollo's own execution would coerce the variables a second time.
        async responseForOperation({ response: { http } }) {
          const result = await executeFairly({ ...args, contextValue }, cost).catch((error: unknown) => {
            if (error instanceof RateLimitedError) {
              http.status = 429
              setRetryAfter(http, error)
            }
            return { errors: [error as GraphQLError] }
          })
          return { http, body: { kind: 'single', singleResult: toClientResult(result) } }
        },
      }
    },
  }
}

/** Without a status, Apollo answers with 500. */
function badRequest(error: GraphQLError): GraphQLError {
  const status = error instanceof RateLimitedError ? 429 : 400
  return new GraphQLError(error.message, {
    originalError: error,
    extensions: { ...error.extensions, http: { status } },
  })
}

function setRetryAfter({ headers }: HTTPGraphQLHead, { retryAfterSeconds }: RateLimitedError): void {
  if (retryAfterSeconds !== null) headers.set('retry-after', String(retryAfterSeconds))
}

function subscriptionOverHttp(): GraphQLError {
  return new GraphQLError(
    'Subscriptions require a WebSocket: open ws://…/graphql with the subprotocol graphql-transport-ws.',
    { extensions: { code: 'BAD_REQUEST' } },
  )
}

/** The id from the `connection_ack` of the sender's socket; anything else is ignored. */
function connectionIdOf(request: Request): string | undefined {
  const id = request.get('x-connection-id')?.toLowerCase()
  return isUuid(id) ? id : undefined
}

/** Aborted when the client disconnects before it has the response. */
function abortOnClose(response: Response): AbortSignal {
  const controller = new AbortController()
  response.once('close', () => {
    if (!response.writableFinished) controller.abort()
  })
  return controller.signal
}
