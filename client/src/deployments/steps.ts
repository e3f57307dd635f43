import type { DeploymentStatus, DeploymentStep } from '../gql/graphql.ts'

/** An event, as far as the tale of a deployment needs it. */
export interface StatusChange {
  sequence: number
  step: DeploymentStep
  status: DeploymentStatus
  text: string
  at: string
}

export const steps: readonly { step: DeploymentStep; name: string }[] = [
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

/** `step` and all before it have been reached; the next one is what the status speaks of. */
export function stateOfStep(step: DeploymentStep, moment: StatusChange | undefined): StepState {
  if (!moment) return 'pending'
  const distance = indexOf(step) - indexOf(moment.step)
  if (distance <= 0) return 'done'
  return distance === 1 ? stateByStatus[moment.status] : 'pending'
}

const stateByStatus: Record<DeploymentStatus, StepState> = {
  QUEUED: 'queued',
  RUNNING: 'running',
  WAITING: 'waiting',
  SUCCEEDED: 'done',
  FAILED: 'failed',
  CANCELLED: 'cancelled',
}

export interface StepTime {
  startedAt: string
  /** Null while it goes on. */
  endedAt: string | null
}

/**
 * When each step was worked on: from when the step before it was reached (or work was taken up again: after the queue,
 * or by a retry) to when it was reached itself, or ended otherwise.
 */
export function stepTimes(changes: readonly StatusChange[]): Map<DeploymentStep, StepTime> {
  const times = new Map<DeploymentStep, StepTime>()
  let before: StatusChange | undefined
  for (const moment of changes) {
    const running = nextStep(moment.step)
    if (before && before.step !== moment.step) close(nextStep(before.step), moment.at)
    const takenUp = !before || before.step !== moment.step || !isUnderWay(before.status)
    if (running && takenUp && isUnderWay(moment.status)) {
      times.set(running, { startedAt: moment.at, endedAt: null })
    }
    if (running && !isActive(moment.status)) close(running, moment.at)
    before = moment
  }
  return times

  function close(step: DeploymentStep | undefined, at: string) {
    const time = step && times.get(step)
    if (time && time.endedAt === null) time.endedAt = at
  }
}

function isUnderWay(status: DeploymentStatus): boolean {
  return status === 'RUNNING' || status === 'WAITING'
}

function nextStep(step: DeploymentStep): DeploymentStep | undefined {
  return steps[indexOf(step) + 1]?.step
}

function indexOf(step: DeploymentStep): number {
  return steps.findIndex((known) => known.step === step)
}
