import type { ApolloServerPlugin } from '@apollo/server'
import { ApolloDriver, type ApolloDriverConfig } from '@nestjs/apollo'
import { GraphQLModule } from '@nestjs/graphql'
import type { Request, Response } from 'express'
import { GraphQLError } from 'graphql'
import { validate as isUuid } from 'uuid'
import { senderOf } from '../auth/http-access.ts'
import { letOthersGo } from '../let-others-go.ts'
import type { RequestContext } from '../request-context.ts'
import { forClient } from './client-errors.ts'
import { MOST_DOCUMENT_TOKENS, refuseDear, refuseLong } from './document-limits.ts'
import { describeRootTypes } from './root-types.ts'

/** GraphQL over HTTP: `POST /graphql`. Subscriptions have a socket of our own, in `live/`. */
export const GraphQLHttpModule = GraphQLModule.forRoot<ApolloDriverConfig>({
  driver: ApolloDriver,
  path: '/graphql',
  autoSchemaFile: true,
  transformSchema: describeRootTypes,
  graphiql: false,
  introspection: true,
  persistedQueries: false,
  includeStacktraceInErrorResponses: false,
  parseOptions: { maxTokens: MOST_DOCUMENT_TOKENS },
  context: ({ req, res }: { req: Request; res: Response }): RequestContext & { req: Request } => ({
    req,
    ...senderOf(req),
    connectionId: connectionId(req),
    signal: closed(res),
  }),
  formatError: ({ extensions }, error) => forClient(error, extensions?.code),
  plugins: [limits()],
  // The sockets and the runner end first.
  stopOnApplicationShutdown: true,
})

function limits(): ApolloServerPlugin {
  return {
    // Only here does Apollo pass on what is thrown. Parsing has been cheap: it stops at its limit of tokens.
    async requestDidStart({ schema, request: { http, query = '', operationName, variables } }) {
      return {
        async didResolveOperation({ document, operation }) {
          const tooMuch = refuseLong(query) ?? refuseDear(schema, document, { operationName, variables })
          if (tooMuch) throw badRequest(tooMuch)
          if (operation?.operation === 'subscription') throw badRequest(subscriptionOverHttp())
          await letOthersGo(http?.headers.get('content-length'))
        },
      }
    },
  }
}

/** Otherwise Apollo answers with status 500, as if it were our fault. */
function badRequest(error: GraphQLError): GraphQLError {
  return new GraphQLError(error.message, {
    originalError: error,
    extensions: { ...error.extensions, http: { status: 400 } },
  })
}

function subscriptionOverHttp(): GraphQLError {
  return new GraphQLError(
    'Subscriptions have a socket: open ws://…/graphql with the subprotocol graphql-transport-ws.',
    { extensions: { code: 'BAD_REQUEST' } },
  )
}

/** The sender's own socket, by the id that its `connection_ack` carried. What is no such id is ignored. */
function connectionId(request: Request): string | undefined {
  const id = request.get('x-connection-id')?.toLowerCase()
  return isUuid(id) ? id : undefined
}

/** Aborted when the client goes away before it has its answer. */
function closed(response: Response): AbortSignal {
  const controller = new AbortController()
  response.once('close', () => {
    if (!response.writableFinished) controller.abort()
  })
  return controller.signal
}
