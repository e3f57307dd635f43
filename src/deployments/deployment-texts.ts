import type { DeploymentStep } from '../events/deployment-event.ts'

/** What is happening, by the last step reached, for display. The texts of the original demonstration. */
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

export function waitingText(step: DeploymentStep, retry: number, maxRetries: number): string {
  return `${activityText(step)}: trying again (${retry} of ${maxRetries})`
}

/** Until a time that GitHub named; does not count as a retry. */
export function pausedText(step: DeploymentStep): string {
  return `${activityText(step)}: waiting for GitHub's rate limit`
}

function activityText(step: DeploymentStep): string {
  return step === 'PUSH_CONTENTS' ? 'Finishing' : STEP_TEXTS[step]
}
