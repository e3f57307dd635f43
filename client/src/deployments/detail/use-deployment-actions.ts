import { useApolloClient } from '@apollo/client/react'
import { useState } from 'react'
import { graphql } from '../../gql/index.ts'
import { deploymentCache } from '../../live/apollo-client.ts'
import { type RequestFailure, toRequestFailure } from '../../live/request-failure.ts'

const CancelDeployment = graphql(`
  mutation CancelDeployment($id: ID!) {
    cancelDeployment(id: $id) {
      ...DeploymentState @unmask
    }
  }
`)

const RetryDeployment = graphql(`
  mutation RetryDeployment($id: ID!) {
    retryDeployment(id: $id) {
      ...DeploymentState @unmask
    }
  }
`)

export interface Actions {
  cancel(): Promise<void>
  retry(): Promise<void>
  /** The one that has been asked for and not been answered. */
  pending: 'cancel' | 'retry' | null
  failure: RequestFailure | null
}

/** What can be done to a deployment that exists. */
export function useDeploymentActions(id: string): Actions {
  const client = useApolloClient()
  const [pending, setPending] = useState<Actions['pending']>(null)
  const [failure, setFailure] = useState<RequestFailure | null>(null)

  async function run(action: 'cancel' | 'retry') {
    if (pending) return
    setPending(action)
    setFailure(null)
    try {
      deploymentCache(client).recordResult(await ask(action))
    } catch (error) {
      setFailure(toRequestFailure(error))
    } finally {
      setPending(null)
    }
  }

  async function ask(action: 'cancel' | 'retry') {
    const options = { variables: { id }, fetchPolicy: 'no-cache' } as const
    if (action === 'cancel') {
      const { data } = await client.mutate({ mutation: CancelDeployment, ...options })
      if (data) return data.cancelDeployment
    } else {
      const { data } = await client.mutate({ mutation: RetryDeployment, ...options })
      if (data) return data.retryDeployment
    }
    throw new Error('The server answered with nothing')
  }

  return { cancel: () => run('cancel'), retry: () => run('retry'), pending, failure }
}
