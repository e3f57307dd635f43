import { useApolloClient } from '@apollo/client/react'
import { useRef, useState } from 'react'
import type { DeployInput } from '../gql/graphql.ts'
import { graphql } from '../gql/index.ts'
import { deploymentCache } from '../live/apollo-client.ts'
import { type RequestFailure, toRequestFailure } from '../live/request-failure.ts'

const Deploy = graphql(`
  mutation Deploy($input: DeployInput!) {
    deploy(input: $input) {
      ...DeploymentState @unmask
    }
  }
`)

type Submission = Omit<DeployInput, 'idempotencyKey'>

/**
 * Submits the form. One submission makes one deployment: while it is on its way another click does nothing, and when
 * its answer was lost, the same input goes out with the same key again.
 */
export function useDeploy() {
  const client = useApolloClient()
  const unanswered = useRef<{ input: Submission; key: string } | null>(null)
  const isOnItsWay = useRef(false)
  const [isDeploying, setDeploying] = useState(false)
  const [failure, setFailure] = useState<RequestFailure | null>(null)

  /** The id of the deployment; null when it failed or another submission is on its way. */
  async function deploy(input: Submission): Promise<string | null> {
    if (isOnItsWay.current) return null
    isOnItsWay.current = true
    setDeploying(true)
    setFailure(null)
    try {
      const deployment = await submit(input)
      unanswered.current = null
      return deployment
    } catch (error) {
      setFailure(toRequestFailure(error))
      return null
    } finally {
      isOnItsWay.current = false
      setDeploying(false)
    }
  }

  async function submit(input: Submission): Promise<string> {
    if (!unanswered.current || !isSame(unanswered.current.input, input)) {
      unanswered.current = { input, key: randomKey() }
    }
    // Not written by Apollo: it would keep the whole input, files and all, as the name of the result.
    const { data } = await client.mutate({
      mutation: Deploy,
      variables: { input: { ...input, idempotencyKey: unanswered.current.key } },
      fetchPolicy: 'no-cache',
    })
    if (!data) throw new Error('The server answered with nothing')
    deploymentCache(client).recordResult(data.deploy)
    return data.deploy.id
  }

  return { deploy, isDeploying, failure, forgetFailure: () => setFailure(null) }
}

function isSame(a: Submission, b: Submission): boolean {
  if (a.contents.files !== b.contents.files) return false
  return JSON.stringify(withoutFiles(a)) === JSON.stringify(withoutFiles(b))
}

function withoutFiles({ contents, ...rest }: Submission) {
  return { ...rest, template: contents.template }
}

/** `crypto.randomUUID` is there on https and on loopback only. */
function randomKey(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) =>
    byte.toString(16).padStart(2, '0'),
  ).join('')
}
