import type { FragmentType } from '@apollo/client'
import { useFragment } from '@apollo/client/react'
import { memo } from 'react'
import { formatDateTime, formatRelativeTime } from '../../format.ts'
import type { DeploymentRowFragment } from '../../gql/graphql.ts'
import { graphql } from '../../gql/index.ts'
import { StatusBadge } from '../status-badge.tsx'
import { isActive, STEPS, stateOfStep } from '../steps.ts'
import styles from './deployment-row.module.css'

const DEPLOYMENT_ROW = graphql(`
  fragment DeploymentRow on Deployment {
    id
    org
    repo
    visibility
    step
    status
    text
    attempt
    createdAt
  }
`)

interface Props {
  deployment: FragmentType<DeploymentRowFragment>
  isSelected: boolean
  nowMs: number
}

export const DeploymentRow = memo(function DeploymentRow({ deployment, isSelected, nowMs }: Props) {
  const { data, complete } = useFragment({ fragment: DEPLOYMENT_ROW, from: deployment })
  if (!complete) return null
  const { id, org, repo, visibility, status, text, attempt, createdAt } = data
  return (
    <li
      className={styles.row}
      data-testid="deployment-list-item"
      data-deployment-id={id}
      data-status={status}
      data-selected={isSelected}
    >
      <a className={styles.link} href={`#${id}`} aria-current={isSelected ? 'true' : undefined}>
        <span className={styles.name}>
          <span className={styles.org}>{org}/</span>
          <wbr />
          <b>{repo}</b>
          {visibility === 'PUBLIC' && <span className={styles.tag}>public</span>}
          {attempt > 1 && <span className={styles.tag}>attempt {attempt}</span>}
          {(isActive(status) || status === 'FAILED') && <span className={styles.text}>{text}</span>}
        </span>
        <span className={styles.steps} aria-hidden="true">
          {STEPS.map(({ step }) => (
            <span key={step} className={styles.step} data-state={stateOfStep(step, data)} />
          ))}
        </span>
        <StatusBadge status={status} />
        <time className={styles.time} dateTime={createdAt} title={formatDateTime(createdAt)}>
          {formatRelativeTime(createdAt, nowMs)}
        </time>
      </a>
    </li>
  )
})
