import { ApolloClient, ApolloLink, HttpLink } from '@apollo/client'
import { catchError, map, throwError } from 'rxjs'
import { DeploymentCache } from './deployment-cache.ts'
import type { LiveSocket } from './live-socket.ts'
import { type SignInProvider, signInProviders } from './request-failure.ts'

/** Queries and mutations go over HTTP; events come over the socket (see LiveDeployments). Both end in one cache. */
export function createApolloClient(
  socket: LiveSocket,
  onRefused: (ways: readonly SignInProvider[]) => void,
): ApolloClient {
  const cache = new DeploymentCache()

  const neverGoBack = new ApolloLink((operation, forward) =>
    forward(operation).pipe(map((result) => ({ ...result, data: cache.keepNewest(result.data) }))),
  )

  const noticeRefusals = new ApolloLink((operation, forward) =>
    forward(operation).pipe(
      catchError((error: unknown) => {
        const ways = signInProviders(error)
        if (ways) onRefused(ways)
        return throwError(() => error)
      }),
    ),
  )

  const nameTheConnection = new ApolloLink((operation, forward) => {
    const { connectionId } = socket.connection()
    if (connectionId) operation.setContext({ headers: { 'x-connection-id': connectionId } })
    return forward(operation)
  })

  return new ApolloClient({
    cache,
    dataMasking: true,
    link: ApolloLink.from([
      noticeRefusals,
      neverGoBack,
      nameTheConnection,
      new HttpLink({ uri: '/graphql' }),
    ]),
  })
}

export function deploymentCache(client: ApolloClient): DeploymentCache {
  if (client.cache instanceof DeploymentCache) return client.cache
  throw new Error('This client was not made by createApolloClient')
}
