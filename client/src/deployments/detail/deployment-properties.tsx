import type { FragmentType } from '@apollo/client'
import { useFragment } from '@apollo/client/react'
import { dateAndTime, duration, files, size } from '../../format.ts'
import type { DeploymentPropertiesDataFragment } from '../../gql/graphql.ts'
import { graphql } from '../../gql/index.ts'

const DeploymentPropertiesData = graphql(`
  fragment DeploymentPropertiesData on Deployment {
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
  deployment: FragmentType<DeploymentPropertiesDataFragment>
}) {
  const { data, complete } = useFragment({ fragment: DeploymentPropertiesData, from: deployment })
  if (!complete) return null
  const { visibility, description, branch, attempt, commitSha, fileCount, sizeBytes } = data
  const { requestedBy, requestedByKind, warnings, warningCount, createdAt, finishedAt } = data
  return (
    <>
      {description && <p className="stage-description">{description}</p>}
      <dl className="details">
        <Detail name="Contents" value={`${files(fileCount)}, ${size(sizeBytes)}`} />
        <Detail name="Visibility" value={visibility === 'PUBLIC' ? 'Public' : 'Private'} />
        <Detail name="Branch" value={branch} />
        {commitSha && <Detail name="Commit" value={commitSha.slice(0, 10)} title={commitSha} />}
        {attempt > 1 && <Detail name="Attempt" value={String(attempt)} />}
        {requestedBy && (
          <Detail
            name="Requested by"
            value={requestedByKind === 'SERVICE' ? `${requestedBy} (service)` : requestedBy}
          />
        )}
        <Detail name="Started" value={dateAndTime(createdAt)} />
        {finishedAt && (
          <Detail name="Took" value={duration(Date.parse(finishedAt) - Date.parse(createdAt))} />
        )}
      </dl>
      {warnings.length > 0 && (
        <ul className="warnings" aria-label="Warnings">
          {warnings.map((warning) => (
            <li key={warning}>{warning}</li>
          ))}
          {warningCount > warnings.length && <li>And {warningCount - warnings.length} more.</li>}
        </ul>
      )}
    </>
  )
}

function Detail({ name, value, title }: { name: string; value: string; title?: string }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd title={title}>{value}</dd>
    </div>
  )
}
