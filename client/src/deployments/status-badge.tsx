import type { DeploymentStatus } from '../gql/graphql.ts'
import styles from './status-badge.module.css'

const LABELS: Record<DeploymentStatus | 'ready', string> = {
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
    <span className={styles.badge} data-status={status} data-testid={testId}>
      <span className={styles.dot} aria-hidden="true" />
      {LABELS[status]}
    </span>
  )
}
