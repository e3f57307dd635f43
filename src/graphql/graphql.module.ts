import type { ApolloServerPlugin } from '@apollo/server'
import { unwrapResolverError } from '@apollo/server/errors'
import { ApolloDriver, type ApolloDriverConfig } from '@nestjs/apollo'
import { GraphQLModule } from '@nestjs/graphql'
import type { Request, Response } from 'express'
import type { RequestContext } from '../request-context.ts'
import { forClient } from './client-errors.ts'
import { MOST_DOCUMENT_TOKENS, refuseDear, refuseLong } from './document-limits.ts'

/** GraphQL over HTTP: `POST /graphql`. Subscriptions have a socket of our own, in `live/`. */
export const GraphQLHttpModule = GraphQLModule.forRoot<ApolloDriverConfig>({
  driver: ApolloDriver,
  path: '/graphql',
  autoSchemaFile: true,
  graphiql: false,
  introspection: true,
  persistedQueries: false,
  includeStacktraceInErrorResponses: false,
  parseOptions: { maxTokens: MOST_DOCUMENT_TOKENS },
  context: ({ req, res }: { req: Request; res: Response }): RequestContext & { req: Request } => ({
    req,
    connectionId: req.get('x-connection-id'),
    signal: closed(res),
  }),
  formatError: (_, error) => forClient(error instanceof Error ? error : unwrapResolverError(error)),
  plugins: [limits()],
  // The sockets and the runner end first.
  stopOnApplicationShutdown: true,
})

function limits(): ApolloServerPlugin {
  return {
    async requestDidStart({ schema, request }) {
      const tooLong = request.query && refuseLong(request.query)
      if (tooLong) throw tooLong
      return {
        async didResolveOperation({ document }) {
          const { operationName, variables } = request
          const tooDear = refuseDear(schema, document, { operationName, variables })
          if (tooDear) throw tooDear
        },
      }
    },
  }
}

/** Aborted when the client goes away before it has its answer. */
function closed(response: Response): AbortSignal {
  const controller = new AbortController()
  response.once('close', () => {
    if (!response.writableFinished) controller.abort()
  })
  return controller.signal
}
