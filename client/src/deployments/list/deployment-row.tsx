import type { FragmentType } from '@apollo/client'
import { useFragment } from '@apollo/client/react'
import { memo } from 'react'
import { dateAndTime, timeAgo } from '../../format.ts'
import type { DeploymentRowFragment } from '../../gql/graphql.ts'
import { graphql } from '../../gql/index.ts'
import { StatusBadge } from '../status-badge.tsx'
import { isActive, stateOfStep, steps } from '../steps.ts'

const DeploymentRowData = graphql(`
  fragment DeploymentRow on Deployment {
    id
    org
    repo
    visibility
    step
    status
    text
    sequence
    attempt
    createdAt
    updatedAt
  }
`)

interface Props {
  deployment: FragmentType<DeploymentRowFragment>
  isSelected: boolean
  nowMs: number
}

export const DeploymentRow = memo(function DeploymentRow({ deployment, isSelected, nowMs }: Props) {
  const { data, complete } = useFragment({ fragment: DeploymentRowData, from: deployment })
  if (!complete) return null
  const { id, org, repo, visibility, status, text, attempt, createdAt, updatedAt } = data
  const moment = { ...data, at: updatedAt }
  return (
    <li
      className="row"
      data-testid="deployment-list-item"
      data-deployment-id={id}
      data-status={status}
      data-selected={isSelected}
    >
      <a className="row-link" href={`#${id}`} aria-current={isSelected ? 'true' : undefined}>
        <span className="row-name">
          <span className="row-org">{org}/</span>
          <wbr />
          <b>{repo}</b>
          {visibility === 'PUBLIC' && <span className="row-note">public</span>}
          {attempt > 1 && <span className="row-note">attempt {attempt}</span>}
          {(isActive(status) || status === 'FAILED') && <span className="row-text">{text}</span>}
        </span>
        <span className="row-steps" aria-hidden="true">
          {steps.map(({ step }) => (
            <span key={step} className="row-step" data-state={stateOfStep(step, moment)} />
          ))}
        </span>
        <StatusBadge status={status} />
        <time className="row-time" dateTime={createdAt} title={dateAndTime(createdAt)}>
          {timeAgo(createdAt, nowMs)}
        </time>
      </a>
    </li>
  )
})
