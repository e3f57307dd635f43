import { NetworkStatus } from '@apollo/client'
import { useQuery } from '@apollo/client/react'
import { useEffect, useState } from 'react'
import type { DeploymentStatus } from '../../gql/graphql.ts'
import { graphql } from '../../gql/index.ts'
import { useCanQuery } from '../../live/live-deployments.tsx'
import { toRequestFailure } from '../../live/request-failure.ts'
import { useServerNowMs } from '../../live/server-clock.ts'
import { Button } from '../../ui/button.tsx'
import { Card } from '../../ui/card.tsx'
import { Notice } from '../../ui/notice.tsx'
import { RadioSegment } from '../../ui/radio-segment.tsx'
import { Skeletons } from '../../ui/skeletons.tsx'
import text from '../../ui/text.module.css'
import { isActive } from '../steps.ts'
import styles from './deployment-list.module.css'
import { DeploymentRow } from './deployment-row.tsx'

const DEPLOYMENTS = graphql(`
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

const PAGE_SIZE = 20

const FILTERS: readonly { name: string; status: DeploymentStatus[] | undefined }[] = [
  { name: 'All', status: undefined },
  { name: 'Active', status: ['QUEUED', 'RUNNING', 'WAITING'] },
  { name: 'Succeeded', status: ['SUCCEEDED'] },
  { name: 'Failed', status: ['FAILED'] },
  { name: 'Cancelled', status: ['CANCELLED'] },
]

interface Props {
  selectedId: string | null
  /** Called once the list has loaded, with the newest active deployment, if any. */
  onFirstLoad(newestActiveId: string | null): void
}

/**
 * Everyone's deployments, newest first. New and changed ones arrive through the cache: see LiveDeployments.
 */
export function DeploymentList({ selectedId, onFirstLoad }: Props) {
  const canQuery = useCanQuery()
  const [filter, setFilter] = useState(FILTERS[0])
  const status = filter?.status
  const { data, error, networkStatus, refetch, fetchMore } = useQuery(DEPLOYMENTS, {
    variables: { first: PAGE_SIZE, status },
    skip: !canQuery,
    notifyOnNetworkStatusChange: true,
  })
  const nowMs = useServerNowMs(15_000)

  const connection = data?.deployments
  const nodes = connection?.edges.map((edge) => edge.node) ?? []
  // A filtered list in the cache keeps deployments whose status has changed since.
  const displayed = nodes.filter((node) => !status || status.includes(node.status))
  const isLoadingMore = networkStatus === NetworkStatus.fetchMore
  const isLoading = !connection && !error

  const isLoaded = connection !== undefined
  // biome-ignore lint/correctness/useExhaustiveDependencies: only for the first result.
  useEffect(() => {
    if (isLoaded) onFirstLoad(nodes.find((node) => isActive(node.status))?.id ?? null)
  }, [isLoaded])

  async function loadMore() {
    // After a failure, the error is displayed and the button stays.
    await fetchMore({ variables: { after: connection?.pageInfo.endCursor } }).catch(() => {})
  }

  return (
    <Card aria-labelledby="list-title" aria-busy={isLoading}>
      <header className={styles.header}>
        <h2 id="list-title">All deployments</h2>
        <fieldset className={styles.filters}>
          <legend className="visually-hidden">Filter by status</legend>
          {FILTERS.map((option) => (
            <RadioSegment
              key={option.name}
              name="status-filter"
              isSmall
              checked={option === filter}
              onChange={() => setFilter(option)}
            >
              {option.name}
            </RadioSegment>
          ))}
        </fieldset>
      </header>

      {isLoading && <Skeletons label="Loading deployments" count={3} />}
      {error && (
        <Notice tone="error">
          <p>Could not load the deployments. {toRequestFailure(error).message}</p>
          <Button onClick={() => refetch().catch(() => {})}>Try again</Button>
        </Notice>
      )}
      {connection && displayed.length === 0 && (
        <p className={text.empty}>
          {status
            ? 'No deployments have this status.'
            : 'No deployments yet. The first one appears here for everyone as soon as it starts.'}
        </p>
      )}
      {displayed.length > 0 && (
        <ul className={styles.rows} data-testid="deployment-list">
          {displayed.map((node) => (
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
        <Button className={styles.more} disabled={isLoadingMore} onClick={loadMore}>
          {isLoadingMore ? 'Loading…' : 'Load more'}
        </Button>
      )}
    </Card>
  )
}
