import type { DeploymentSnapshot } from '../../src/events/deployment-event.ts'

/** The deployment whose events all servers send, in the middle of a push. */
export const SAMPLE_DEPLOYMENT: Omit<DeploymentSnapshot, 'sequence' | 'updatedAt'> = {
  id: '0199c1f4-7a52-7cc1-9d0e-3f2b8a6c5d41',
  org: 'acme',
  repo: 'web-shop',
  visibility: 'PRIVATE',
  description: null,
  branch: 'main',
  step: 'CREATE_REPO',
  status: 'RUNNING',
  text: 'Pushing contents',
  attempt: 1,
  progress: { done: 183_296, total: 524_288, unit: 'bytes' },
  waitingUntil: null,
  error: null,
  repositoryUrl: 'http://127.0.0.1:3000/git/acme/web-shop',
  cloneUrl: 'http://127.0.0.1:3000/git/acme/web-shop.git',
  commitSha: null,
  fileCount: 42,
  sizeBytes: 524_288,
  createdAt: '2026-01-15T09:30:00.125Z',
  finishedAt: null,
}

const DATES = { createdAt: new Date(SAMPLE_DEPLOYMENT.createdAt), waitingUntil: null, finishedAt: null }

/** Event n as the other servers resolve it: a `DeploymentEvent` with dates as `Date`. */
export function deploymentEvent(sequence: number) {
  const at = new Date()
  const { id, step, status, text, progress, waitingUntil, error } = SAMPLE_DEPLOYMENT
  return {
    deploymentId: id,
    sequence,
    cursor: `1001${String(sequence).padStart(12, '0')}`,
    step,
    status,
    text,
    progress,
    waitingUntil,
    error,
    at,
    deployment: { ...SAMPLE_DEPLOYMENT, ...DATES, sequence, updatedAt: at },
  }
}

export type DeploymentEventValue = ReturnType<typeof deploymentEvent>

/** The fields that `subscription()` selects, in its order; for the server that executes nothing. */
export function selectedFields(event: DeploymentEventValue): object {
  const { deploymentId, sequence, cursor, step, status, text, at, deployment } = event
  return { cursor, deploymentId, sequence, step, status, text, at, deployment }
}

/** The page's own subscription. With a number: the same selection under another name. */
export function subscription(distinct?: number): string {
  const alias = distinct === undefined ? '' : `text${distinct}: `
  return `subscription DeploymentStatus${distinct ?? ''}($after: String) {
  deploymentStatus(after: $after) {
    cursor
    deploymentId
    sequence
    step
    status
    ${alias}text
    at
    deployment {
      id
      org
      repo
      visibility
      description
      branch
      step
      status
      text
      sequence
      attempt
      progress { done total unit }
      waitingUntil
      error { code message retryable step }
      repositoryUrl
      cloneUrl
      commitSha
      fileCount
      sizeBytes
      createdAt
      updatedAt
      finishedAt
    }
  }
}`
}

export function subscriptions(count: number): string[] {
  return count === 1 ? [subscription()] : Array.from({ length: count }, (_, i) => subscription(i))
}
