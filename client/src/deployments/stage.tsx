import { useFragment } from '@apollo/client/react'
import { type Ref, useEffect } from 'react'
import type { DeploymentStatus } from '../gql/graphql.ts'
import { graphql } from '../gql/index.ts'
import { ActionButtons } from './action-buttons.tsx'
import { CloneCommand } from './clone-command.tsx'
import { Details } from './details.tsx'
import { useNarration } from './narration.ts'
import { Problem } from './problem.tsx'
import { PushProgress } from './push-progress.tsx'
import { StatusBadge } from './status-badge.tsx'
import { StepList } from './step-list.tsx'
import { isActive, type Moment } from './steps.ts'
import { useWholeDeployment } from './use-whole-deployment.ts'
import { WaitingUntil } from './waiting-until.tsx'

const StageDeployment = graphql(`
  fragment StageDeployment on Deployment {
    id
    org
    repo
    step
    status
    text
    sequence
    updatedAt
    ...StageActions
    ...StageClone
    ...StageDetails
    ...StageProblem
    ...StageProgress
    ...StageWaiting
  }
`)

const StageEvents = graphql(`
  fragment StageEvents on Deployment {
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
export function Stage({ id, onTold, onMissing, onLeave, ref }: Props) {
  const from = id === null ? null : { __typename: 'Deployment' as const, id }
  const state = useFragment({ fragment: StageDeployment, fragmentName: 'StageDeployment', from })
  const events = useFragment({ fragment: StageEvents, from })
  const deployment = id !== null && state.complete ? state.data : null
  const loading = useWholeDeployment(id, deployment?.sequence ?? 0)

  const held = events.complete ? (events.data?.events ?? []) : []
  const moments = deployment ? withLatest(held, deployment) : []
  const shown = useNarration(id, moments)
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

      {!isUnknown && <StepList shown={shown} moments={moments} />}
      {deployment && shown && (
        <>
          {isTold && <WaitingUntil deployment={deployment} />}
          <PushProgress deployment={deployment} step={shown.step} status={shown.status} />
          {isTold && <Problem deployment={deployment} />}
          {isTold && <CloneCommand deployment={deployment} />}
          <Details deployment={deployment} />
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
  events: readonly Moment[],
  { sequence, step, status, text, updatedAt }: Omit<Moment, 'at'> & { updatedAt: string },
): readonly Moment[] {
  if (events.at(-1)?.sequence === sequence) return events
  return [
    ...events.filter((event) => event.sequence < sequence),
    { sequence, step, status, text, at: updatedAt },
  ]
}
