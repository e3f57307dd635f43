import type { DeploymentStep } from '../../events/deployment-event.ts'
import type { Visibility } from '../../github/github-client.ts'

/**
 * The right to run a deployment: valid while no runner has a higher epoch and the lease is renewed in time.
 */
export interface Lease {
  id: string
  /** The fencing token. */
  epoch: number
  /** After a failover that loses commits, another owner can have the same epoch. */
  owner: string
}

/** Everything a runner needs to know about a deployment, as stored. */
export interface LeasedDeployment extends Lease {
  org: string
  repo: string
  visibility: Visibility
  description: string | null
  branch: string
  /** The last step reached. */
  step: DeploymentStep
  /** Fixed at acceptance: the commit that the branch will point to. */
  plannedCommit: string
  plannedTree: string
  objectCount: number
  packBytes: number
  fileCount: number
  /** Null until the repository exists. */
  repositoryId: string | null
  cancelRequested: boolean
  /** Retries of the current step. */
  retryCount: number
  /** Runners that died since the last step was reached. */
  reclaimCount: number
}

/** The select list that reads a `LeasedDeployment` from a row of `deployments`. */
export function leasedDeploymentColumns(row: string): string {
  return Object.entries(COLUMNS)
    .map(([field, column]) => `${row}.${column} as "${field}"`)
    .join(', ')
}

const COLUMNS: Readonly<Record<keyof LeasedDeployment, string>> = {
  id: 'id',
  epoch: 'epoch',
  owner: 'leased_by',
  org: 'org',
  repo: 'repo',
  visibility: 'visibility',
  description: 'description',
  branch: 'branch',
  step: 'step',
  plannedCommit: 'planned_commit',
  plannedTree: 'planned_tree',
  objectCount: 'object_count',
  packBytes: 'pack_bytes',
  fileCount: 'file_count',
  repositoryId: 'repository_id',
  cancelRequested: 'cancel_requested',
  retryCount: 'retry_count',
  reclaimCount: 'reclaim_count',
}
