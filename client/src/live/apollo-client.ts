import { ApolloClient, ApolloLink, HttpLink } from '@apollo/client'
import { map } from 'rxjs'
import { DeploymentCache } from './deployment-cache.ts'
import type { LiveSocket } from './live-socket.ts'

/** Queries and mutations go over HTTP; events come over the socket (see LiveDeployments). Both end in one cache. */
export function createApolloClient(socket: LiveSocket): ApolloClient {
  const cache = new DeploymentCache()

  const neverGoBack = new ApolloLink((operation, forward) =>
    forward(operation).pipe(map((result) => ({ ...result, data: cache.keepNewest(result.data) }))),
  )

  const nameTheConnection = new ApolloLink((operation, forward) => {
    const { connectionId } = socket.connection()
    if (connectionId) operation.setContext({ headers: { 'x-connection-id': connectionId } })
    return forward(operation)
  })

  return new ApolloClient({
    cache,
    dataMasking: true,
    link: ApolloLink.from([neverGoBack, nameTheConnection, new HttpLink({ uri: '/graphql' })]),
  })
}

export function deploymentCache(client: ApolloClient): DeploymentCache {
  if (client.cache instanceof DeploymentCache) return client.cache
  throw new Error('This client was not made by createApolloClient')
}
