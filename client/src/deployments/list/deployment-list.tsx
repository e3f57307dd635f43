import { NetworkStatus } from '@apollo/client'
import { useQuery } from '@apollo/client/react'
import { useEffect, useState } from 'react'
import type { DeploymentStatus } from '../../gql/graphql.ts'
import { graphql } from '../../gql/index.ts'
import { useJoined } from '../../live/live-deployments.tsx'
import { toRequestFailure } from '../../live/request-failure.ts'
import { isActive } from '../steps.ts'
import { useNowMs } from '../use-now.ts'
import { DeploymentRow } from './deployment-row.tsx'

const Deployments = graphql(`
  query Deployments($first: Int!, $after: String, $status: [DeploymentStatus!]) {
    deployments(first: $first, after: $after, status: $status) {
      edges {
        node {
          id
          status
          ...DeploymentRow
          ...DeploymentState
        }
      }
      pageInfo {
        hasNextPage
        endCursor
      }
    }
  }
`)

const pageSize = 20

const filters: readonly { name: string; status: DeploymentStatus[] | undefined }[] = [
  { name: 'All', status: undefined },
  { name: 'Active', status: ['QUEUED', 'RUNNING', 'WAITING'] },
  { name: 'Succeeded', status: ['SUCCEEDED'] },
  { name: 'Failed', status: ['FAILED'] },
  { name: 'Cancelled', status: ['CANCELLED'] },
]

interface Props {
  selectedId: string | null
  /** Called with the newest active deployment once the list is there; null when there is none. */
  onFirstLoad(newestActiveId: string | null): void
}

/** All deployments, newest first, whoever started them. New ones appear and all move by themselves: see LiveDeployments. */
export function DeploymentList({ selectedId, onFirstLoad }: Props) {
  const joined = useJoined()
  const [filter, setFilter] = useState(filters[0])
  const status = filter?.status
  const { data, error, networkStatus, refetch, fetchMore } = useQuery(Deployments, {
    variables: { first: pageSize, status },
    skip: !joined,
    notifyOnNetworkStatusChange: true,
  })
  const nowMs = useNowMs(15_000)

  const connection = data?.deployments
  const nodes = connection?.edges.map((edge) => edge.node) ?? []
  // A list with a filter keeps those that have left it meanwhile; they are not shown.
  const shown = nodes.filter((node) => !status || status.includes(node.status))
  const isLoadingMore = networkStatus === NetworkStatus.fetchMore
  const isLoading = !connection && !error

  const isLoaded = connection !== undefined
  // biome-ignore lint/correctness/useExhaustiveDependencies: of the first answer only.
  useEffect(() => {
    if (isLoaded) onFirstLoad(nodes.find((node) => isActive(node.status))?.id ?? null)
  }, [isLoaded])

  async function loadMore() {
    // A page that did not come leaves the button there to be pressed again, and the error is shown beside it.
    await fetchMore({ variables: { after: connection?.pageInfo.endCursor } }).catch(() => {})
  }

  return (
    <section className="card list" aria-labelledby="list-title" aria-busy={isLoading}>
      <header className="list-head">
        <h2 id="list-title">All deployments</h2>
        <fieldset className="filters">
          <legend className="visually-hidden">Show deployments with status</legend>
          {filters.map((choice) => (
            <label key={choice.name} className="filter">
              <input
                type="radio"
                name="status-filter"
                className="visually-hidden"
                checked={choice === filter}
                onChange={() => setFilter(choice)}
              />
              <span className="segment">{choice.name}</span>
            </label>
          ))}
        </fieldset>
      </header>

      {isLoading && (
        <div className="skeletons" role="status">
          <span className="visually-hidden">Loading deployments</span>
          <span className="skeleton" />
          <span className="skeleton" />
          <span className="skeleton" />
        </div>
      )}
      {error && (
        <div className="notice notice-bad" role="alert">
          <p>The list could not be fetched. {toRequestFailure(error).message}</p>
          <button type="button" className="button" onClick={() => refetch().catch(() => {})}>
            Try again
          </button>
        </div>
      )}
      {connection && shown.length === 0 && <Empty isFiltered={status !== undefined} />}
      {shown.length > 0 && (
        <ul className="rows" data-testid="deployment-list">
          {shown.map((node) => (
            <DeploymentRow
              key={node.id}
              deployment={node}
              isSelected={node.id === selectedId}
              nowMs={nowMs}
            />
          ))}
        </ul>
      )}
      {connection?.pageInfo.hasNextPage && (
        <button type="button" className="button list-more" disabled={isLoadingMore} onClick={loadMore}>
          {isLoadingMore ? 'Loading…' : 'Load more'}
        </button>
      )}
    </section>
  )
}

function Empty({ isFiltered }: { isFiltered: boolean }) {
  return (
    <p className="empty">
      {isFiltered
        ? 'No deployment has this status.'
        : 'No deployments yet. The first one appears here for everyone, the moment it starts.'}
    </p>
  )
}
