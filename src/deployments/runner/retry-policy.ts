import type { DeploymentProblem, DeploymentStep } from '../../events/deployment-event.ts'
import { ForgeError } from '../../github/forge-error.ts'
import { failedText, pausedText, waitingText } from '../deployment-texts.ts'
import type { LeasedDeployment } from './leased-deployment.ts'

/** Automatic retries of one step, over about two minutes. Then a person must decide. */
export const MAX_RETRIES = 8
const INITIAL_DELAY_MS = 1_000
const MAX_DELAY_MS = 60_000
/** A deployment whose runners died this often at one step fails. */
export const MAX_RECLAIMS = 10

type RetryDecision = { text: string; problem: DeploymentProblem } & (
  | { outcome: 'wait'; delayMs: number }
  /** Until the time that the forge named; does not count as a retry. */
  | { outcome: 'pause'; delayMs: number }
  | { outcome: 'fail' }
)

class RunnerDiedError extends Error {
  override readonly name = 'RunnerDiedError'
}

export function assertReclaimsWithinLimit({ reclaimCount }: Pick<LeasedDeployment, 'reclaimCount'>): void {
  if (reclaimCount > MAX_RECLAIMS) {
    throw new RunnerDiedError(
      `The process that ran this step died ${MAX_RECLAIMS} times. Check its log for the cause, then retry.`,
    )
  }
}

/** What to do about a failed step. `logId` replaces the details of errors that are not for clients. */
export function decideRetry(
  error: unknown,
  deployment: Pick<LeasedDeployment, 'step' | 'retryCount'>,
  logId: string,
): RetryDecision {
  const { step: lastStep, retryCount } = deployment
  const step = failedStep(lastStep)
  if (error instanceof RunnerDiedError) {
    return failed(lastStep, { code: 'RUNNER_DIED', message: error.message, retryable: true, step })
  }
  if (!(error instanceof ForgeError)) {
    const message = `Something went wrong on our side. Retry; if it happens again, report the id ${logId}, under which it is logged.`
    return failed(lastStep, { code: 'INTERNAL', message, retryable: true, step })
  }
  const problem = { code: error.code, message: error.message, retryable: error.remedy !== 'never', step }
  if (error.remedy === 'pause' && error.retryAt) {
    const delayMs = Math.max(0, error.retryAt.getTime() - Date.now())
    return { outcome: 'pause', delayMs, text: pausedText(lastStep), problem }
  }
  if (error.remedy !== 'backoff' || retryCount >= MAX_RETRIES) return failed(lastStep, problem)
  return {
    outcome: 'wait',
    delayMs: backoffMs(retryCount),
    text: waitingText(lastStep, retryCount + 1, MAX_RETRIES),
    problem,
  }
}

function failed(lastStep: DeploymentStep, problem: DeploymentProblem): RetryDecision {
  return { outcome: 'fail', text: failedText(lastStep), problem }
}

/** 1, 2, 4 … 60 s, plus or minus 20 %, so that deployments that failed together do not all retry together. */
function backoffMs(retryCount: number): number {
  return Math.min(INITIAL_DELAY_MS * 2 ** retryCount, MAX_DELAY_MS) * (0.8 + 0.4 * Math.random())
}

function failedStep(lastStep: DeploymentStep): DeploymentStep {
  const next: Record<DeploymentStep, DeploymentStep> = {
    DEPLOY: 'CREATE_ORG',
    CREATE_ORG: 'CREATE_REPO',
    CREATE_REPO: 'PUSH_CONTENTS',
    PUSH_CONTENTS: 'DONE',
    DONE: 'DONE',
  }
  return next[lastStep]
}
