import type { DeploymentStatus } from '../gql/graphql.ts'

const words: Record<DeploymentStatus | 'ready', string> = {
  ready: 'Ready',
  QUEUED: 'Queued',
  RUNNING: 'Running',
  WAITING: 'Waiting',
  SUCCEEDED: 'Succeeded',
  FAILED: 'Failed',
  CANCELLED: 'Cancelled',
}

export function StatusBadge({ status, testId }: { status: DeploymentStatus | 'ready'; testId?: string }) {
  return (
    <span className="badge" data-status={status} data-testid={testId}>
      <span className="badge-dot" aria-hidden="true" />
      {words[status]}
    </span>
  )
}
