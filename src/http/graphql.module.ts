import type { ApolloServerPlugin, HTTPGraphQLHead } from '@apollo/server'
import { ApolloDriver, type ApolloDriverConfig } from '@nestjs/apollo'
import { GraphQLModule } from '@nestjs/graphql'
import type { Request, Response } from 'express'
import { GraphQLError, OperationTypeNode } from 'graphql'
import { validate as isUuid } from 'uuid'
import { principalOf } from '../auth/http-access.ts'
import { RateLimiter } from '../auth/rate-limiter.ts'
import type { RequestContext } from '../auth/request-context.ts'
import { RateLimitedError } from '../errors.ts'
import { toClientError, toClientResult } from '../graphql/client-errors.ts'
import { checkDepth, MAX_DOCUMENT_TOKENS, MAX_VALIDATION_ERRORS } from '../graphql/document-limits.ts'
import { executeFairly } from '../graphql/execute-fairly.ts'
import {
  checkComplexity,
  operationNotFound,
  type PreparedArgs,
  prepareOperation,
} from '../graphql/prepare-operation.ts'
import { describeRootTypes } from '../graphql/root-types.ts'
import { requestScheduler } from '../runtime/fair-scheduler.ts'

/** GraphQL over HTTP: `/graphql`. Subscriptions have a socket of our own, in `live/`. */
export const GraphQLHttpModule = GraphQLModule.forRootAsync<ApolloDriverConfig>({
  driver: ApolloDriver,
  inject: [RateLimiter],
  useFactory: (limits: RateLimiter) => ({
    path: '/graphql',
    autoSchemaFile: true,
    transformSchema: describeRootTypes,
    graphiql: false,
    introspection: true,
    persistedQueries: false,
    // What it would prevent the origin guard does, which lets programs ask by GET.
    csrfPrevention: false,
    includeStacktraceInErrorResponses: false,
    parseOptions: { maxTokens: MAX_DOCUMENT_TOKENS },
    validationOptions: { maxErrors: MAX_VALIDATION_ERRORS },
    context: async ({ req, res }: { req: Request; res: Response }) => {
      const sender = principalOf(req)
      // The last before Apollo parses and validates the document, which takes long for some.
      await requestScheduler.waitForTurn(sender.subject.id)
      const connection = { connectionId: connectionIdOf(req), signal: abortOnClose(res) }
      return { req, ...sender, ...connection } satisfies RequestContext & { req: Request }
    },
    formatError: ({ extensions }, error) => toClientError(error, extensions?.code),
    plugins: [executionPlugin(limits)],
    // The sockets and the runner end first.
    stopOnApplicationShutdown: true,
  }),
})

/** From the document, which Apollo has parsed and validated, to the answer: as on the socket. */
function executionPlugin(limits: RateLimiter): ApolloServerPlugin<RequestContext> {
  return {
    async requestDidStart({ schema, request, contextValue }) {
      // An empty name is none, here as on the socket.
      if (request.operationName === '') request.operationName = undefined
      let args: PreparedArgs
      let cost = 0
      return {
        // Only here does Apollo pass on what is thrown.
        async didResolveOperation({ document, operation, response }) {
          if (!operation) throw badRequest(operationNotFound())
          if (operation.operation === OperationTypeNode.SUBSCRIPTION) throw badRequest(subscriptionOverHttp())
          const tooDeep = checkDepth(schema, document)
          if (tooDeep) throw badRequest(tooDeep)
          try {
            args = prepareOperation(schema, document, operation, request.variables)
            cost = checkComplexity(args)
            limits.countCost(contextValue.subject, cost)
          } catch (error) {
            if (error instanceof RateLimitedError) setRetryAfter(response.http, error)
            throw error instanceof GraphQLError ? badRequest(error) : error
          }
          await requestScheduler.yieldIfBusy(contextValue.subject.id)
        },
        // Apollo's own execution would coerce the variables again.
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

/** Otherwise Apollo answers with status 500, as if it were our fault. */
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
    'Subscriptions have a socket: open ws://…/graphql with the subprotocol graphql-transport-ws.',
    { extensions: { code: 'BAD_REQUEST' } },
  )
}

/** The sender's own socket, by the id that its `connection_ack` carried. What is no such id is ignored. */
function connectionIdOf(request: Request): string | undefined {
  const id = request.get('x-connection-id')?.toLowerCase()
  return isUuid(id) ? id : undefined
}

/** Aborted when the client goes away before it has its answer. */
function abortOnClose(response: Response): AbortSignal {
  const controller = new AbortController()
  response.once('close', () => {
    if (!response.writableFinished) controller.abort()
  })
  return controller.signal
}
