import { useFragment } from '@apollo/client/react'
import { type Ref, useEffect } from 'react'
import { graphql } from '../../gql/index.ts'
import { Button } from '../../ui/button.tsx'
import { Card } from '../../ui/card.tsx'
import { Notice } from '../../ui/notice.tsx'
import { Skeletons } from '../../ui/skeletons.tsx'
import { StatusBadge } from '../status-badge.tsx'
import { isActive, type StatusChange } from '../steps.ts'
import { ActionButtons } from './action-buttons.tsx'
import { CloneCommand } from './clone-command.tsx'
import styles from './deployment-detail.module.css'
import { DeploymentProperties } from './deployment-properties.tsx'
import { FailureNotice } from './failure-notice.tsx'
import { PushProgress } from './push-progress.tsx'
import { StepList } from './step-list.tsx'
import { useDeploymentHistory } from './use-deployment-history.ts'
import { usePacedStatus } from './use-paced-status.ts'
import { WaitingNotice } from './waiting-notice.tsx'

const DEPLOYMENT_DETAIL = graphql(`
  fragment DeploymentDetail on Deployment {
    id
    org
    repo
    step
    status
    text
    sequence
    updatedAt
    ...ActionButtons
    ...CloneCommand
    ...DeploymentProperties
    ...FailureNotice
    ...PushProgress
    ...WaitingNotice
  }
`)

const DEPLOYMENT_EVENTS = graphql(`
  fragment DeploymentEvents on Deployment {
    id
    events {
      deploymentId
      sequence
      step
      status
      text
      at
    }
  }
`)

interface Props {
  /** Null before the first deployment. */
  id: string | null
  /** Called with true once the final status is displayed. */
  onDisplayed(id: string, hasEnded: boolean): void
  /** Called when the deployment does not exist or the user cannot see it. */
  onMissing(id: string): void
  /** Present for a selected deployment: returns to following new ones. */
  onLeave: (() => void) | null
  ref?: Ref<HTMLElement>
}

/** One deployment in full, live. */
export function DeploymentDetail({ id, onDisplayed, onMissing, onLeave, ref }: Props) {
  const from = id === null ? null : { __typename: 'Deployment' as const, id }
  const state = useFragment({ fragment: DEPLOYMENT_DETAIL, fragmentName: 'DeploymentDetail', from })
  const history = useFragment({ fragment: DEPLOYMENT_EVENTS, from })
  const deployment = id !== null && state.complete ? state.data : null
  const loading = useDeploymentHistory(id, deployment?.sequence ?? 0)

  const events = history.complete ? (history.data?.events ?? []) : []
  const changes = deployment ? withLatest(events, deployment) : []
  const displayed = usePacedStatus(id, changes)
  const isCurrent = displayed !== undefined && displayed.sequence === deployment?.sequence
  const hasEnded = isCurrent && !isActive(displayed.status)
  useEffect(() => {
    if (id !== null) onDisplayed(id, hasEnded)
  }, [id, hasEnded, onDisplayed])

  const isUnknown = id !== null && !deployment
  const isMissing = isUnknown && loading.state === 'missing'
  useEffect(() => {
    if (isMissing) onMissing(id)
  }, [isMissing, id, onMissing])

  const title =
    deployment && displayed ? `${displayed.text} ${deployment.org}/${deployment.repo} · Shipcast` : 'Shipcast'
  useEffect(() => {
    document.title = title
  }, [title])

  const status = id === null ? 'ready' : (displayed?.status ?? 'QUEUED')

  return (
    <Card
      className={styles.detail}
      aria-labelledby="detail-title"
      data-status={isUnknown ? 'unknown' : status}
      ref={ref}
    >
      <header className={styles.header}>
        <h2 id="detail-title" className={styles.title}>
          {deployment ? (
            <>
              <span className={styles.org}>{deployment.org}/</span>
              <wbr />
              {deployment.repo}
            </>
          ) : (
            'Deployment'
          )}
        </h2>
        {!isUnknown && <StatusBadge status={status} testId="status" />}
      </header>

      <p className={styles.statusText} data-testid="status-text" aria-live="polite" aria-atomic="true">
        {id === null ? 'Ready!' : isMissing ? 'Not found' : displayed?.text}
      </p>

      {id === null && (
        <p className={styles.hint}>
          Nothing is being deployed. Press <b>Deploy</b>, and everyone who has this page open sees each step.
        </p>
      )}
      {isMissing && (
        <p className={styles.hint}>
          This deployment does not exist, or you do not have access to it. The link may be for another server.
        </p>
      )}
      {loading.state === 'failed' && (
        <Notice tone="error">
          <p>Could not load earlier events.</p>
          <Button onClick={loading.tryAgain}>Try again</Button>
        </Notice>
      )}
      {isUnknown && loading.state === 'loading' && (
        <Skeletons label="Loading the deployment" count={2} hasTitle />
      )}

      {!isUnknown && <StepList displayed={displayed} changes={changes} />}
      {deployment && displayed && (
        <>
          {isCurrent && <WaitingNotice deployment={deployment} />}
          <PushProgress deployment={deployment} displayed={displayed} />
          {isCurrent && <FailureNotice deployment={deployment} />}
          {isCurrent && <CloneCommand deployment={deployment} />}
          <DeploymentProperties deployment={deployment} />
          <ActionButtons key={deployment.id} deployment={deployment} isCurrent={isCurrent} />
        </>
      )}
      {onLeave && (
        <Button variant="quiet" className={styles.leave} onClick={onLeave}>
          Follow the next deployment
        </Button>
      )}
    </Card>
  )
}

/** The state is also the latest event, even while the events are still loading. */
function withLatest(
  events: readonly StatusChange[],
  { sequence, step, status, text, updatedAt: at }: Omit<StatusChange, 'at'> & { updatedAt: string },
): readonly StatusChange[] {
  if (events.at(-1)?.sequence === sequence) return events
  return [...events.filter((event) => event.sequence < sequence), { sequence, step, status, text, at }]
}
