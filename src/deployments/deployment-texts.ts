import type { DeploymentStatus, DeploymentStep } from '../events/deployment-event.ts'

/** What a person is told is happening, once a step has been reached. Word for word as in the original demonstration. */
export const STEP_TEXTS: Readonly<Record<DeploymentStep, string>> = {
  DEPLOY: 'Creating org',
  CREATE_ORG: 'Creating repo',
  CREATE_REPO: 'Pushing contents',
  PUSH_CONTENTS: 'Done!',
  DONE: 'Done!',
}

export const QUEUED_TEXT = 'Waiting for a free runner'

export const CANCELLED_TEXT = 'Cancelled'

export function failedText(step: DeploymentStep): string {
  return `${activityText(step)} failed`
}

export function waitingText(step: DeploymentStep, tries: number, mostTries: number): string {
  return `${activityText(step)}: trying again (${tries} of ${mostTries})`
}

/** GitHub has said until when; it does not count as a try. */
export function pausedText(step: DeploymentStep): string {
  return `${activityText(step)}: waiting for GitHub's rate limit`
}

export function isFinished(status: DeploymentStatus): boolean {
  return status === 'SUCCEEDED' || status === 'FAILED' || status === 'CANCELLED'
}

function activityText(step: DeploymentStep): string {
  return step === 'PUSH_CONTENTS' ? 'Finishing' : STEP_TEXTS[step]
}
