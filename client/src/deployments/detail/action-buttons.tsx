import type { FragmentType } from '@apollo/client'
import { useFragment } from '@apollo/client/react'
import { useMe } from '../../auth/auth-context.ts'
import { canManage } from '../../auth/permissions.ts'
import type { ActionButtonsFragment } from '../../gql/graphql.ts'
import { graphql } from '../../gql/index.ts'
import { Button } from '../../ui/button.tsx'
import { Notice } from '../../ui/notice.tsx'
import { isActive } from '../steps.ts'
import styles from './action-buttons.module.css'
import { useDeploymentActions } from './use-deployment-actions.ts'

const ACTION_BUTTONS = graphql(`
  fragment ActionButtons on Deployment {
    id
    org
    requestedById
    status
    error {
      retryable
    }
  }
`)

interface Props {
  deployment: FragmentType<ActionButtonsFragment>
  /** False while the page still displays earlier status changes. */
  isCurrent: boolean
}

export function ActionButtons({ deployment, isCurrent }: Props) {
  const { data, complete } = useFragment({ fragment: ACTION_BUTTONS, from: deployment })
  const { cancel, retry, pending, failure } = useDeploymentActions(complete ? data.id : '')
  const me = useMe()
  if (!complete) return null
  const { id, status, error } = data
  const isAllowed = canManage(me, data)
  const isRetryable = status === 'CANCELLED' || (status === 'FAILED' && error?.retryable !== false)
  const canCancel = isAllowed && isActive(status)
  const canRetry = isAllowed && isRetryable && isCurrent
  return (
    <>
      {failure && (
        <Notice tone="error">
          <p>
            {failure.message}
            {failure.deploymentId && failure.deploymentId !== id && (
              <>
                {' '}
                <a href={`#${failure.deploymentId}`}>Show that deployment</a>
              </>
            )}
          </p>
        </Notice>
      )}
      {(canCancel || canRetry) && (
        <div className={styles.actions}>
          {canCancel && (
            <Button disabled={pending !== null} onClick={cancel}>
              {pending === 'cancel' ? 'Cancelling…' : 'Cancel'}
            </Button>
          )}
          {canRetry && (
            <Button variant="primary" disabled={pending !== null} onClick={retry}>
              {pending === 'retry' ? 'Retrying…' : 'Retry'}
            </Button>
          )}
        </div>
      )}
    </>
  )
}
