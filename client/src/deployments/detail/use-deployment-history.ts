import { useApolloClient } from '@apollo/client/react'
import { useEffect, useState } from 'react'
import { graphql } from '../../gql/index.ts'
import { deploymentCache } from '../../live/apollo-client.ts'
import { useCanQuery } from '../../live/live-deployments.tsx'

const DEPLOYMENT_HISTORY = graphql(`
  query DeploymentHistory($id: ID!, $after: Int!) {
    deployment(id: $id) {
      ...DeploymentState
      events(after: $after, first: 100) {
        ...EventState
      }
    }
  }
`)

/** Far more than any deployment needs: ends the loop if the server keeps returning nothing new. */
const MAX_PAGES = 50

type Settled = { state: 'loaded' | 'missing' } | { state: 'failed'; tryAgain: () => void }
type LoadingState = Settled | { state: 'loading' }

/** Fetches the deployment and its events, unless the cache contains them. */
export function useDeploymentHistory(id: string | null, sequence: number): LoadingState {
  const client = useApolloClient()
  const canQuery = useCanQuery()
  const [attempt, setAttempt] = useState(0)
  const [settled, setSettled] = useState<{ id: string; loading: Settled } | null>(null)

  // biome-ignore lint/correctness/useExhaustiveDependencies: each new event may leave a gap before it.
  useEffect(() => {
    if (!canQuery || id === null) return
    const requestedId = id
    let isCurrent = true
    const cache = deploymentCache(client)
    const settle = (loading: Settled) => isCurrent && setSettled({ id: requestedId, loading })
    fetchMissing().then(
      (state) => settle({ state }),
      () => settle({ state: 'failed', tryAgain: () => setAttempt((count) => count + 1) }),
    )
    return () => {
      isCurrent = false
    }

    async function fetchMissing() {
      for (let page = 0; page < MAX_PAGES; page++) {
        const after = cache.missingAfter(requestedId)
        if (after === null) return 'loaded'
        const { data } = await client.query({
          query: DEPLOYMENT_HISTORY,
          variables: { id: requestedId, after },
          fetchPolicy: 'network-only',
        })
        if (!data?.deployment) return 'missing'
      }
      return 'loaded'
    }
  }, [client, canQuery, id, sequence, attempt])

  return settled?.id === id ? settled.loading : { state: 'loading' }
}
