import { ApolloClient, ApolloLink, HttpLink } from '@apollo/client'
import { catchError, map, throwError } from 'rxjs'
import { DeploymentCache } from './deployment-cache.ts'
import type { LiveSocket } from './live-socket.ts'
import { type SignInProvider, signInProviders } from './request-failure.ts'

/** Queries and mutations use HTTP; events arrive over the socket (see LiveDeployments). All share one cache. */
export function createApolloClient(
  socket: LiveSocket,
  onUnauthenticated: (providers: readonly SignInProvider[]) => void,
): ApolloClient {
  const cache = new DeploymentCache()

  const unauthenticatedLink = new ApolloLink((operation, forward) =>
    forward(operation).pipe(
      catchError((error: unknown) => {
        const providers = signInProviders(error)
        if (providers) onUnauthenticated(providers)
        return throwError(() => error)
      }),
    ),
  )

  const keepNewestLink = new ApolloLink((operation, forward) =>
    forward(operation).pipe(map((result) => ({ ...result, data: cache.keepNewest(result.data) }))),
  )

  const connectionIdLink = new ApolloLink((operation, forward) => {
    const { connectionId } = socket.connection()
    if (connectionId) operation.setContext({ headers: { 'x-connection-id': connectionId } })
    return forward(operation)
  })

  return new ApolloClient({
    cache,
    dataMasking: true,
    link: ApolloLink.from([
      unauthenticatedLink,
      keepNewestLink,
      connectionIdLink,
      new HttpLink({ uri: '/graphql' }),
    ]),
  })
}

export function deploymentCache(client: ApolloClient): DeploymentCache {
  if (client.cache instanceof DeploymentCache) return client.cache
  throw new Error('This client was not created by createApolloClient')
}
