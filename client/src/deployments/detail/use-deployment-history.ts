import { useApolloClient } from '@apollo/client/react'
import { useEffect, useState } from 'react'
import { graphql } from '../../gql/index.ts'
import { deploymentCache } from '../../live/apollo-client.ts'
import { useJoined } from '../../live/live-deployments.tsx'

const DeploymentHistory = graphql(`
  query DeploymentHistory($id: ID!, $after: Int!) {
    deployment(id: $id) {
      ...DeploymentState
      events(after: $after, first: 100) {
        ...EventState
      }
    }
  }
`)

/** Far more events than a deployment has; a server that answers with nothing new must not be asked for ever. */
const mostPages = 50

type Settled = { state: 'loaded' | 'missing' } | { state: 'failed'; tryAgain: () => void }
export type Loading = Settled | { state: 'loading' }

/** Fetches what the cache does not hold of a deployment and its events: of one seen from its start, nothing. */
export function useDeploymentHistory(id: string | null, sequence: number): Loading {
  const client = useApolloClient()
  const joined = useJoined()
  const [attempt, setAttempt] = useState(0)
  const [settled, setSettled] = useState<{ id: string; loading: Settled } | null>(null)

  // biome-ignore lint/correctness/useExhaustiveDependencies: each new event may leave a gap before it.
  useEffect(() => {
    if (!joined || id === null) return
    const wanted = id
    let isCurrent = true
    const cache = deploymentCache(client)
    const settle = (loading: Settled) => isCurrent && setSettled({ id: wanted, loading })
    fetchMissing().then(
      (state) => settle({ state }),
      () => settle({ state: 'failed', tryAgain: () => setAttempt((count) => count + 1) }),
    )
    return () => {
      isCurrent = false
    }

    async function fetchMissing() {
      for (let page = 0; page < mostPages; page++) {
        const after = cache.missingAfter(wanted)
        if (after === null) return 'loaded'
        const { data } = await client.query({
          query: DeploymentHistory,
          variables: { id: wanted, after },
          fetchPolicy: 'network-only',
        })
        if (!data?.deployment) return 'missing'
      }
      return 'loaded'
    }
  }, [client, joined, id, sequence, attempt])

  return settled?.id === id ? settled.loading : { state: 'loading' }
}
