import type { FragmentType } from '@apollo/client'
import { useFragment } from '@apollo/client/react'
import { useMe } from '../../auth/auth-context.ts'
import { canManage } from '../../auth/permissions.ts'
import type { DeploymentActionsFragment } from '../../gql/graphql.ts'
import { graphql } from '../../gql/index.ts'
import { isActive } from '../steps.ts'
import { useDeploymentActions } from './use-deployment-actions.ts'

const DeploymentActions = graphql(`
  fragment DeploymentActions on Deployment {
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
  deployment: FragmentType<DeploymentActionsFragment>
  /** False while the page still tells what led to the present state. */
  isTold: boolean
}

export function ActionButtons({ deployment, isTold }: Props) {
  const { data, complete } = useFragment({ fragment: DeploymentActions, from: deployment })
  const { cancel, retry, pending, failure } = useDeploymentActions(complete ? data.id : '')
  const me = useMe()
  if (!complete) return null
  const isAllowed = canManage(me, data)
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
