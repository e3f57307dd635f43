import { useFragment } from '@apollo/client/react'
import { type Ref, useEffect } from 'react'
import type { DeploymentStatus } from '../../gql/graphql.ts'
import { graphql } from '../../gql/index.ts'
import { StatusBadge } from '../status-badge.tsx'
import { isActive, type StatusChange } from '../steps.ts'
import { ActionButtons } from './action-buttons.tsx'
import { CloneCommand } from './clone-command.tsx'
import { DeploymentProperties } from './deployment-properties.tsx'
import { FailureNotice } from './failure-notice.tsx'
import { PushProgress } from './push-progress.tsx'
import { StepList } from './step-list.tsx'
import { useDeploymentHistory } from './use-deployment-history.ts'
import { usePacedStatus } from './use-paced-status.ts'
import { WaitingNotice } from './waiting-notice.tsx'

const DeploymentDetailData = graphql(`
  fragment DeploymentDetailData on Deployment {
    id
    org
    repo
    step
    status
    text
    sequence
    updatedAt
    ...DeploymentActions
    ...CloneCommandData
    ...DeploymentPropertiesData
    ...FailureNoticeData
    ...PushProgressData
    ...WaitingNoticeData
  }
`)

const DeploymentDetailEvents = graphql(`
  fragment DeploymentDetailEvents on Deployment {
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
  /** The deployment on stage; null before there is any. */
  id: string | null
  /** Called with true once the end of the deployment has been told. */
  onTold(id: string, hasEnded: boolean): void
  /** Called when there is no such deployment, or not any more for whoever looks. */
  onMissing(id: string): void
  /** Shown when this deployment was picked; leads back to whatever begins next. */
  onLeave: (() => void) | null
  ref?: Ref<HTMLElement>
}

/** One deployment in full, live. */
export function DeploymentDetail({ id, onTold, onMissing, onLeave, ref }: Props) {
  const from = id === null ? null : { __typename: 'Deployment' as const, id }
  const state = useFragment({ fragment: DeploymentDetailData, fragmentName: 'DeploymentDetailData', from })
  const events = useFragment({ fragment: DeploymentDetailEvents, from })
  const deployment = id !== null && state.complete ? state.data : null
  const loading = useDeploymentHistory(id, deployment?.sequence ?? 0)

  const held = events.complete ? (events.data?.events ?? []) : []
  const changes = deployment ? withLatest(held, deployment) : []
  const shown = usePacedStatus(id, changes)
  const isTold = shown !== undefined && shown.sequence === deployment?.sequence
  const hasEnded = isTold && !isActive(shown.status)
  useEffect(() => {
    if (id !== null) onTold(id, hasEnded)
  }, [id, hasEnded, onTold])

  const title =
    deployment && shown ? `${shown.text} ${deployment.org}/${deployment.repo} · Shipcast` : 'Shipcast'
  useEffect(() => {
    document.title = title
  }, [title])

  const status: DeploymentStatus | 'ready' = id === null ? 'ready' : (shown?.status ?? 'QUEUED')
  const isMissing = id !== null && !deployment && loading.state === 'missing'
  const isUnknown = id !== null && !deployment
  useEffect(() => {
    if (isMissing) onMissing(id)
  }, [isMissing, id, onMissing])

  return (
    <section
      className="card stage"
      aria-labelledby="stage-title"
      data-stage={isUnknown ? 'unknown' : status}
      ref={ref}
    >
      <header className="stage-head">
        <h2 id="stage-title" className="stage-title">
          {deployment ? (
            <>
              <span className="stage-org">{deployment.org}/</span>
              <wbr />
              {deployment.repo}
            </>
          ) : (
            'Deployment'
          )}
        </h2>
        {!isUnknown && <StatusBadge status={status} testId="status" />}
      </header>

      <p className="status-text" data-testid="status-text" aria-live="polite" aria-atomic="true">
        {id === null ? 'Ready!' : isMissing ? 'Not found' : shown?.text}
      </p>

      {id === null && (
        <p className="stage-hint">
          Nothing is being deployed. Press <b>Deploy</b>, and everyone who has this page open watches it
          happen.
        </p>
      )}
      {isMissing && (
        <p className="stage-hint">
          There is no deployment with this id, or you may not see it. The link may be of another server.
        </p>
      )}
      {loading.state === 'failed' && (
        <div className="notice notice-bad" role="alert">
          <p>What happened before could not be fetched.</p>
          <button type="button" className="button" onClick={loading.tryAgain}>
            Try again
          </button>
        </div>
      )}
      {isUnknown && loading.state === 'loading' && (
        <div className="skeletons" role="status">
          <span className="visually-hidden">Loading the deployment</span>
          <span className="skeleton skeleton-title" />
          <span className="skeleton" />
          <span className="skeleton" />
        </div>
      )}

      {!isUnknown && <StepList shown={shown} changes={changes} />}
      {deployment && shown && (
        <>
          {isTold && <WaitingNotice deployment={deployment} />}
          <PushProgress deployment={deployment} step={shown.step} status={shown.status} />
          {isTold && <FailureNotice deployment={deployment} />}
          {isTold && <CloneCommand deployment={deployment} />}
          <DeploymentProperties deployment={deployment} />
          <ActionButtons key={deployment.id} deployment={deployment} isTold={isTold} />
        </>
      )}
      {onLeave && (
        <button type="button" className="button button-quiet stage-leave" onClick={onLeave}>
          Follow whatever starts next
        </button>
      )}
    </section>
  )
}

/** The state is the latest event, also where the events themselves are still being fetched. */
function withLatest(
  events: readonly StatusChange[],
  { sequence, step, status, text, updatedAt }: Omit<StatusChange, 'at'> & { updatedAt: string },
): readonly StatusChange[] {
  if (events.at(-1)?.sequence === sequence) return events
  return [
    ...events.filter((event) => event.sequence < sequence),
    { sequence, step, status, text, at: updatedAt },
  ]
}
