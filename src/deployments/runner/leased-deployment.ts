import type { DeploymentStep } from '../../events/deployment-event.ts'
import type { Visibility } from '../../github/github-client.ts'

/** The right to run a deployment: as long as no other runner has a higher epoch, and the lease is renewed in time. */
export interface Lease {
  id: string
  epoch: number
  /** A failover that loses commits can give the same epoch to another owner. */
  owner: string
}

/** All that a runner needs to know of a deployment, as it is stored. */
export interface LeasedDeployment extends Lease {
  org: string
  repo: string
  visibility: Visibility
  description: string | null
  branch: string
  /** The last step reached. */
  step: DeploymentStep
  /** Fixed at acceptance: the commit that the branch will be at. */
  plannedCommit: string
  plannedTree: string
  objectCount: number
  packBytes: number
  fileCount: number
  /** Known from when the repository was created. */
  repositoryId: string | null
  cancelRequested: boolean
  /** Failed calls of the present step that were tried again. */
  retryCount: number
  /** Runners that died since the last step was reached. */
  reclaimCount: number
}

/** The columns behind `Work`, to be selected from a row of `deployments`. */
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
