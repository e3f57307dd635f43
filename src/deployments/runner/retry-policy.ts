import type { DeploymentProblem, DeploymentStep } from '../../events/deployment-event.ts'
import { ForgeError } from '../../github/forge-error.ts'
import { failedText, pausedText, waitingText } from '../deployment-texts.ts'
import type { LeasedDeployment } from './leased-deployment.ts'

/** A step is tried this often again by itself: about two minutes in all. Then a person decides. */
export const MAX_RETRIES = 8
const INITIAL_DELAY_MS = 1_000
const MAX_DELAY_MS = 60_000
/** A deployment whose runners die this often at the same step is not given to another one. */
export const MAX_RECLAIMS = 10

export type RetryDecision = { text: string; problem: DeploymentProblem } & (
  | { outcome: 'wait'; delayMs: number }
  /** As the forge has asked: it does not count as a try. */
  | { outcome: 'pause'; delayMs: number }
  | { outcome: 'fail' }
)

/** What is to be done about a step that failed. `logId` is told to people where the error itself is not for them. */
export function decideRetry(
  error: unknown,
  work: Pick<LeasedDeployment, 'step' | 'retryCount'>,
  logId: string,
): RetryDecision {
  const step = failedStep(work.step)
  if (!(error instanceof ForgeError)) {
    return failed(work.step, {
      code: 'INTERNAL',
      message: `Something went wrong on our side. Retry; if it happens again, report the id ${logId}, under which it is logged.`,
      retryable: true,
      step,
    })
  }
  const problem = { code: error.code, message: error.message, retryable: error.remedy !== 'never', step }
  if (error.remedy === 'pause' && error.retryAt) {
    const delayMs = Math.max(0, error.retryAt.getTime() - Date.now())
    return { outcome: 'pause', delayMs, text: pausedText(work.step), problem }
  }
  if (error.remedy !== 'backoff' || work.retryCount >= MAX_RETRIES) return failed(work.step, problem)
  return {
    outcome: 'wait',
    delayMs: backoffMs(work.retryCount),
    text: waitingText(work.step, work.retryCount + 1, MAX_RETRIES),
    problem,
  }
}

export function tooManyReclaims(work: Pick<LeasedDeployment, 'step'>): RetryDecision {
  return failed(work.step, {
    code: 'RUNNER_DIED',
    message: `The process that ran this step died ${MAX_RECLAIMS} times. See its log for why, then retry.`,
    retryable: true,
    step: failedStep(work.step),
  })
}

/** 1, 2, 4 … 60 s, give or take a fifth, so that those who failed together do not come back together. */
export function backoffMs(tries: number): number {
  return Math.min(INITIAL_DELAY_MS * 2 ** tries, MAX_DELAY_MS) * (0.8 + 0.4 * Math.random())
}

function failed(reached: DeploymentStep, problem: DeploymentProblem): RetryDecision {
  return { outcome: 'fail', text: failedText(reached), problem }
}

function failedStep(reached: DeploymentStep): DeploymentStep {
  const next: Record<DeploymentStep, DeploymentStep> = {
    DEPLOY: 'CREATE_ORG',
    CREATE_ORG: 'CREATE_REPO',
    CREATE_REPO: 'PUSH_CONTENTS',
    PUSH_CONTENTS: 'DONE',
    DONE: 'DONE',
  }
  return next[reached]
}
