export type DeploymentStep = 'DEPLOY' | 'CREATE_ORG' | 'CREATE_REPO' | 'PUSH_CONTENTS' | 'DONE'
export type DeploymentStatus = 'QUEUED' | 'RUNNING' | 'WAITING' | 'SUCCEEDED' | 'FAILED' | 'CANCELLED'

/** Statuses of a deployment that is not finished; at most one such deployment exists for a repository. */
export const ACTIVE_STATUSES = ['QUEUED', 'RUNNING', 'WAITING'] as const satisfies DeploymentStatus[]

export function isActive({ status }: Pick<DeploymentSnapshot, 'status'>): boolean {
  return ACTIVE_STATUSES.some((active) => active === status)
}

export interface DeploymentProblem {
  code: string
  message: string
  retryable: boolean
  step: DeploymentStep
}

/** A deployment as it is told to viewers, at one of its events. Kept as JSON in the log. */
export interface DeploymentSnapshot {
  id: string
  org: string
  repo: string
  visibility: 'PUBLIC' | 'PRIVATE'
  description: string | null
  branch: string
  step: DeploymentStep
  status: DeploymentStatus
  text: string
  sequence: number
  attempt: number
  progress: { done: number; total: number; unit: string } | null
  /** Times are ISO 8601, UTC. */
  waitingUntil: string | null
  error: DeploymentProblem | null
  repositoryUrl: string | null
  cloneUrl: string | null
  commitSha: string | null
  fileCount: number
  sizeBytes: number
  createdAt: string
  updatedAt: string
  finishedAt: string | null
  /** Who asked for it. Absent in events from before there were accounts. */
  requestedBy?: { id: string; name: string } | null
  /** At most 20 sentences, and how many there are in all. Absent in events from before there were warnings. */
  warnings?: string[]
  warningCount?: number
}

/** One line of the log. It holds all there is to tell, so that a viewer's state is right after any one event. */
export interface LoggedEvent {
  /** Contiguous over all deployments, in commit order, from 1. */
  position: number
  deploymentId: string
  /** Contiguous for the deployment, from 1. */
  sequence: number
  at: Date
  /** The connection whose own request made this event, which it is not sent again. */
  origin: string | null
  deployment: DeploymentSnapshot
  /** Its own random number, and that of the event before it: the same log has the same ones. */
  eventId: number
  previousEventId: number
}
