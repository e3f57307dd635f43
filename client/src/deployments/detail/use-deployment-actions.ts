import { useApolloClient } from '@apollo/client/react'
import { useState } from 'react'
import { graphql } from '../../gql/index.ts'
import { deploymentCache } from '../../live/apollo-client.ts'
import { type RequestFailure, toRequestFailure } from '../../live/request-failure.ts'

const CANCEL_DEPLOYMENT = graphql(`
  mutation CancelDeployment($id: ID!) {
    cancelDeployment(id: $id) {
      ...DeploymentState @unmask
    }
  }
`)

const RETRY_DEPLOYMENT = graphql(`
  mutation RetryDeployment($id: ID!) {
    retryDeployment(id: $id) {
      ...DeploymentState @unmask
    }
  }
`)

type Action = 'cancel' | 'retry'

interface DeploymentActions {
  cancel(): Promise<void>
  retry(): Promise<void>
  /** The action whose response has not arrived yet. */
  pending: Action | null
  failure: RequestFailure | null
}

export function useDeploymentActions(id: string): DeploymentActions {
  const client = useApolloClient()
  const [pending, setPending] = useState<Action | null>(null)
  const [failure, setFailure] = useState<RequestFailure | null>(null)

  async function run(action: Action) {
    if (pending) return
    setPending(action)
    setFailure(null)
    try {
      deploymentCache(client).recordResult(await send(action))
    } catch (error) {
      setFailure(toRequestFailure(error))
    } finally {
      setPending(null)
    }
  }

  async function send(action: Action) {
    const options = { variables: { id }, fetchPolicy: 'no-cache' } as const
    if (action === 'cancel') {
      const { data } = await client.mutate({ mutation: CANCEL_DEPLOYMENT, ...options })
      if (data) return data.cancelDeployment
    } else {
      const { data } = await client.mutate({ mutation: RETRY_DEPLOYMENT, ...options })
      if (data) return data.retryDeployment
    }
    throw new Error('The server returned no data')
  }

  return { cancel: () => run('cancel'), retry: () => run('retry'), pending, failure }
}
