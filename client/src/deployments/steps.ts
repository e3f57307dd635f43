import type { DeploymentStatus, DeploymentStep } from '../gql/graphql.ts'

/** The part of an event that steps and texts depend on. */
export interface StatusChange {
  sequence: number
  step: DeploymentStep
  status: DeploymentStatus
  text: string
  at: string
}

export const STEPS: readonly { step: DeploymentStep; name: string }[] = [
  { step: 'DEPLOY', name: 'Deploy' },
  { step: 'CREATE_ORG', name: 'Create organization' },
  { step: 'CREATE_REPO', name: 'Create repository' },
  { step: 'PUSH_CONTENTS', name: 'Push contents' },
  { step: 'DONE', name: 'Done' },
]

export type StepState = 'done' | 'running' | 'waiting' | 'queued' | 'failed' | 'cancelled' | 'pending'

export function isActive(status: DeploymentStatus): boolean {
  return status === 'QUEUED' || status === 'RUNNING' || status === 'WAITING'
}

/** A deployment has completed its `step` and all before it; its status describes the step after that. */
export function stateOfStep(
  step: DeploymentStep,
  current: Pick<StatusChange, 'step' | 'status'> | undefined,
): StepState {
  if (!current) return 'pending'
  const distance = indexOf(step) - indexOf(current.step)
  if (distance <= 0) return 'done'
  return distance === 1 ? STATE_BY_STATUS[current.status] : 'pending'
}

const STATE_BY_STATUS: Record<DeploymentStatus, StepState> = {
  QUEUED: 'queued',
  RUNNING: 'running',
  WAITING: 'waiting',
  SUCCEEDED: 'done',
  FAILED: 'failed',
  CANCELLED: 'cancelled',
}

export interface StepTime {
  startedAt: string
  /** Null while the step runs. */
  endedAt: string | null
}

/**
 * When each step ran. It starts when the step before it is completed, or when work resumes after the queue or
 * by a retry; it ends when it is completed, fails or is cancelled.
 */
export function stepTimes(changes: readonly StatusChange[]): Map<DeploymentStep, StepTime> {
  const times = new Map<DeploymentStep, StepTime>()
  let previous: StatusChange | undefined
  for (const change of changes) {
    const current = stepAfter(change.step)
    if (previous && previous.step !== change.step) end(stepAfter(previous.step), change.at)
    const isStart = !previous || previous.step !== change.step || !isInProgress(previous.status)
    if (current && isStart && isInProgress(change.status)) {
      times.set(current, { startedAt: change.at, endedAt: null })
    }
    if (current && !isActive(change.status)) end(current, change.at)
    previous = change
  }
  return times

  function end(step: DeploymentStep | undefined, at: string) {
    const time = step && times.get(step)
    if (time && time.endedAt === null) time.endedAt = at
  }
}

function isInProgress(status: DeploymentStatus): boolean {
  return status === 'RUNNING' || status === 'WAITING'
}

function stepAfter(step: DeploymentStep): DeploymentStep | undefined {
  return STEPS[indexOf(step) + 1]?.step
}

function indexOf(step: DeploymentStep): number {
  return STEPS.findIndex((known) => known.step === step)
}
