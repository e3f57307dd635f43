import type { FragmentType } from '@apollo/client'
import { useFragment } from '@apollo/client/react'
import { formatBytes, formatDateTime, formatDuration, formatFileCount } from '../../format.ts'
import type { DeploymentPropertiesFragment } from '../../gql/graphql.ts'
import { graphql } from '../../gql/index.ts'
import styles from './deployment-properties.module.css'

const DEPLOYMENT_PROPERTIES = graphql(`
  fragment DeploymentProperties on Deployment {
    visibility
    description
    branch
    attempt
    commitSha
    fileCount
    sizeBytes
    requestedBy
    requestedByKind
    warnings
    warningCount
    createdAt
    finishedAt
  }
`)

export function DeploymentProperties({
  deployment,
}: {
  deployment: FragmentType<DeploymentPropertiesFragment>
}) {
  const { data, complete } = useFragment({ fragment: DEPLOYMENT_PROPERTIES, from: deployment })
  if (!complete) return null
  const { visibility, description, branch, attempt, commitSha, fileCount, sizeBytes } = data
  const { requestedBy, requestedByKind, warnings, warningCount, createdAt, finishedAt } = data
  return (
    <>
      {description && <p className={styles.description}>{description}</p>}
      <dl className={styles.properties}>
        <Property name="Contents" value={`${formatFileCount(fileCount)}, ${formatBytes(sizeBytes)}`} />
        <Property name="Visibility" value={visibility === 'PUBLIC' ? 'Public' : 'Private'} />
        <Property name="Branch" value={branch} />
        {commitSha && <Property name="Commit" value={commitSha.slice(0, 10)} title={commitSha} />}
        {attempt > 1 && <Property name="Attempt" value={String(attempt)} />}
        {requestedBy && (
          <Property
            name="Requested by"
            value={requestedByKind === 'SERVICE' ? `${requestedBy} (service)` : requestedBy}
          />
        )}
        <Property name="Started" value={formatDateTime(createdAt)} />
        {finishedAt && (
          <Property name="Duration" value={formatDuration(Date.parse(finishedAt) - Date.parse(createdAt))} />
        )}
      </dl>
      {warnings.length > 0 && (
        <ul className={styles.warnings} aria-label="Warnings">
          {warnings.map((warning) => (
            <li key={warning}>{warning}</li>
          ))}
          {warningCount > warnings.length && <li>And {warningCount - warnings.length} more.</li>}
        </ul>
      )}
    </>
  )
}

function Property({ name, value, title }: { name: string; value: string; title?: string }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd title={title}>{value}</dd>
    </div>
  )
}
