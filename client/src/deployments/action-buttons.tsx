import type { FragmentType } from '@apollo/client'
import { useFragment } from '@apollo/client/react'
import { useMe } from '../access/access-context.ts'
import { mayChange } from '../access/rights.ts'
import type { StageActionsFragment } from '../gql/graphql.ts'
import { graphql } from '../gql/index.ts'
import { useActions } from './actions.ts'
import { isActive } from './steps.ts'

const StageActions = graphql(`
  fragment StageActions on Deployment {
    id
    org
    requestedBy
    requestedByKind
    status
    error {
      retryable
    }
  }
`)

interface Props {
  deployment: FragmentType<StageActionsFragment>
  /** False while the page still tells what led to the present state. */
  isTold: boolean
}

export function ActionButtons({ deployment, isTold }: Props) {
  const { data, complete } = useFragment({ fragment: StageActions, from: deployment })
  const { cancel, retry, pending, failure } = useActions(complete ? data.id : '')
  const me = useMe()
  if (!complete) return null
  const isAllowed = mayChange(me, data)
  const canCancel = isAllowed && isActive(data.status)
  const hasEndedBadly =
    data.status === 'CANCELLED' || (data.status === 'FAILED' && data.error?.retryable !== false)
  const canRetry = isAllowed && hasEndedBadly
  return (
    <>
      {failure && (
        <p className="notice notice-bad" role="alert">
          {failure.message}
          {failure.deploymentId && failure.deploymentId !== data.id && (
            <>
              {' '}
              <a href={`#${failure.deploymentId}`}>Show that deployment</a>
            </>
          )}
        </p>
      )}
      {(canCancel || (canRetry && isTold)) && (
        <div className="actions">
          {canCancel && (
            <button type="button" className="button" disabled={pending !== null} onClick={cancel}>
              {pending === 'cancel' ? 'Cancelling…' : 'Cancel'}
            </button>
          )}
          {canRetry && isTold && (
            <button type="button" className="button button-main" disabled={pending !== null} onClick={retry}>
              {pending === 'retry' ? 'Retrying…' : 'Retry'}
            </button>
          )}
        </div>
      )}
    </>
  )
}
