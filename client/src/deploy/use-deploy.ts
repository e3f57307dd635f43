import { useApolloClient } from '@apollo/client/react'
import { useRef, useState } from 'react'
import type { DeployInput } from '../gql/graphql.ts'
import { graphql } from '../gql/index.ts'
import { deploymentCache } from '../live/apollo-client.ts'
import { type RequestFailure, toRequestFailure } from '../live/request-failure.ts'

const DEPLOY = graphql(`
  mutation Deploy($input: DeployInput!) {
    deploy(input: $input) {
      ...DeploymentState @unmask
    }
  }
`)

type Submission = Omit<DeployInput, 'idempotencyKey'>

/**
 * Submits the form. One submission creates one deployment: further clicks are ignored while a request is pending, and
 * after a lost response the same input is sent again with the same idempotency key.
 */
export function useDeploy() {
  const client = useApolloClient()
  const unanswered = useRef<{ input: Submission; idempotencyKey: string } | null>(null)
  const isPending = useRef(false)
  const [isDeploying, setDeploying] = useState(false)
  const [failure, setFailure] = useState<RequestFailure | null>(null)

  /** Resolves to the id of the deployment; null when it failed or another submission is pending. */
  async function deploy(input: Submission): Promise<string | null> {
    if (isPending.current) return null
    isPending.current = true
    setDeploying(true)
    setFailure(null)
    try {
      const id = await submit(input)
      unanswered.current = null
      return id
    } catch (error) {
      setFailure(toRequestFailure(error))
      return null
    } finally {
      isPending.current = false
      setDeploying(false)
    }
  }

  async function submit(input: Submission): Promise<string> {
    if (!unanswered.current || !isSameInput(unanswered.current.input, input)) {
      unanswered.current = { input, idempotencyKey: randomKey() }
    }
    const { idempotencyKey } = unanswered.current
    // Apollo must not cache this result: its key would contain the whole input, files included.
    const { data } = await client.mutate({
      mutation: DEPLOY,
      variables: { input: { ...input, idempotencyKey } },
      fetchPolicy: 'no-cache',
    })
    if (!data) throw new Error('The server returned no data')
    deploymentCache(client).recordResult(data.deploy)
    return data.deploy.id
  }

  return { deploy, isDeploying, failure }
}

function isSameInput(a: Submission, b: Submission): boolean {
  if (a.contents.files !== b.contents.files) return false
  return JSON.stringify(withoutFiles(a)) === JSON.stringify(withoutFiles(b))
}

function withoutFiles({ contents, ...rest }: Submission) {
  return { ...rest, template: contents.template }
}

/** `crypto.randomUUID` requires https or loopback. */
function randomKey(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) =>
    byte.toString(16).padStart(2, '0'),
  ).join('')
}
