import { type FieldMergeFunction, InMemoryCache, type Reference } from '@apollo/client'
import type { DeploymentStateFragment, DeploymentStatus, EventStateFragment } from '../gql/graphql.ts'
import { graphql } from '../gql/index.ts'
import { type DeploymentPages, insertDeployment, mergePage } from './deployment-pages.ts'

/** Every field of a deployment that changes. All requests include it, so that a cached state is complete. */
const DEPLOYMENT_STATE = graphql(`
  fragment DeploymentState on Deployment {
    id
    org
    repo
    visibility
    description
    branch
    step
    status
    text
    sequence
    attempt
    progress {
      done
      total
      unit
    }
    waitingUntil
    error {
      code
      message
      retryable
      step
    }
    repositoryUrl
    cloneUrl
    commitSha
    fileCount
    sizeBytes
    requestedBy
    requestedById
    requestedByKind
    warnings
    warningCount
    createdAt
    updatedAt
    finishedAt
  }
`)

/** Used by name in other documents. */
graphql(`
  fragment EventState on DeploymentEvent {
    deploymentId
    sequence
    step
    status
    text
    at
  }
`)

const CACHED_EVENTS = graphql(`
  fragment CachedEvents on Deployment {
    id
    events {
      ...EventState @unmask
    }
  }
`)

/**
 * The only store of deployments. States arrive from three sources (events, mutation results, query results)
 * and may overtake each other: the highest sequence wins, whatever the order of arrival.
 */
export class DeploymentCache extends InMemoryCache {
  // The result of a list query may be older than events that arrived before it: recent deployments are added
  // to it.
  private readonly recentIds = new Set<string>()

  constructor() {
    super({
      typePolicies: {
        DeploymentEvent: { keyFields: ['deploymentId', 'sequence'] },
        Deployment: { fields: { events: { keyArgs: false, merge: mergeEvents } } },
        Query: {
          fields: {
            deployment: {
              read: (existing: Reference | null | undefined, { args, toReference }) =>
                existing === undefined ? toReference({ __typename: 'Deployment', id: args?.id }) : existing,
            },
            deployments: {
              keyArgs: ['org', 'repo', 'status'],
              merge: (existing, incoming, options) => this.mergeList(existing, incoming, options),
            },
          },
        },
      },
    })
  }

  /** Records an event of the subscription; true if its deployment was unknown before. */
  recordEvent(event: EventStateFragment, deployment: DeploymentStateFragment): boolean {
    const isNew = this.stateOf(deployment.id) === null
    this.batch({
      update: () => {
        this.writeEvent(event)
        this.writeState(deployment)
      },
    })
    return isNew
  }

  /** Records the result of a mutation, and its event, which the server does not send to this connection. */
  recordResult(deployment: DeploymentStateFragment): void {
    const { id: deploymentId, sequence, step, status, text, updatedAt: at } = deployment
    this.batch({
      update: () => {
        this.writeEvent({ __typename: 'DeploymentEvent', deploymentId, sequence, step, status, text, at })
        this.writeState(deployment)
      },
    })
  }

  /** Replaces each deployment in a result that is older than its cached state. */
  keepNewest<T>(data: T): T {
    if (Array.isArray(data)) return data.map((item) => this.keepNewest(item)) as T
    if (typeof data !== 'object' || data === null) return data
    const fields = Object.entries(data).map(([name, value]) => [name, this.keepNewest(value)])
    const copy = Object.fromEntries(fields)
    if (copy.__typename !== 'Deployment') return copy
    const cached = this.stateOf(copy.id)
    return cached && cached.sequence > copy.sequence ? { ...copy, ...cached } : copy
  }

  /** The sequence after which events of this deployment are missing; null if all are cached. */
  missingAfter(id: string): number | null {
    const state = this.stateOf(id)
    if (!state) return 0
    const cached = this.readFragment({
      fragment: CACHED_EVENTS,
      fragmentName: 'CachedEvents',
      id: cacheIdOf(id),
    })
    const sequences = new Set(cached?.events.map((event) => event.sequence))
    for (let sequence = 1; sequence <= state.sequence; sequence++) {
      if (!sequences.has(sequence)) return sequence - 1
    }
    return null
  }

  /** After the event log was replaced: recent deployments may no longer exist. */
  forgetRecent(): void {
    this.recentIds.clear()
  }

  private stateOf(id: string): DeploymentStateFragment | null {
    return this.readFragment({ fragment: DEPLOYMENT_STATE, id: cacheIdOf(id) })
  }

  private writeState(deployment: DeploymentStateFragment): void {
    const cached = this.stateOf(deployment.id)
    if (cached && cached.sequence >= deployment.sequence) return
    this.writeFragment({ fragment: DEPLOYMENT_STATE, id: cacheIdOf(deployment.id), data: deployment })
    this.rememberRecent(deployment.id)
    this.addToLists(deployment)
  }

  private writeEvent(event: EventStateFragment): void {
    this.writeFragment({
      fragment: CACHED_EVENTS,
      fragmentName: 'CachedEvents',
      id: cacheIdOf(event.deploymentId),
      data: { __typename: 'Deployment', id: event.deploymentId, events: [event] },
    })
  }

  private rememberRecent(id: string): void {
    this.recentIds.delete(id)
    this.recentIds.add(id)
    const [oldest] = this.recentIds
    if (this.recentIds.size > MAX_RECENT && oldest) this.recentIds.delete(oldest)
  }

  private addToLists({ id, status }: DeploymentStateFragment): void {
    this.modify<{ deployments: DeploymentPages }>({
      fields: {
        deployments: (value, { storeFieldName, readField }) => {
          const pages = value as unknown as DeploymentPages
          if (!matches(status, statusFilterOf(storeFieldName))) return pages
          const createdAtOf = (node: Reference) => readField<string>('createdAt', node)
          return insertDeployment(pages, { __ref: cacheIdOf(id) }, createdAtOf) as never
        },
      },
    })
  }

  private mergeList: FieldMergeFunction<DeploymentPages> = (existing, incoming, { args, readField }) => {
    const createdAtOf = (node: Reference) => readField<string>('createdAt', node)
    let pages = mergePage(existing, incoming, Boolean(args?.after), createdAtOf)
    for (const id of this.recentIds) {
      const node = { __ref: cacheIdOf(id) }
      if (matches(readField<DeploymentStatus>('status', node), args?.status ?? null))
        pages = insertDeployment(pages, node, createdAtOf)
    }
    return pages
  }
}

const MAX_RECENT = 500

function cacheIdOf(deploymentId: string): string {
  return `Deployment:${deploymentId}`
}

function matches(status: DeploymentStatus | undefined, filter: readonly DeploymentStatus[] | null): boolean {
  return !filter || (status !== undefined && filter.includes(status))
}

/** The status argument of a cached list; its store field name is `deployments:{"status":[…]}`. */
function statusFilterOf(storeFieldName: string): DeploymentStatus[] | null {
  const start = storeFieldName.indexOf('{')
  return start < 0 ? null : (JSON.parse(storeFieldName.slice(start)).status ?? null)
}

const mergeEvents: FieldMergeFunction<readonly Reference[]> = (existing = [], incoming, { readField }) => {
  const known = new Set(existing.map((event) => event.__ref))
  const added = incoming.filter((event) => !known.has(event.__ref))
  const sequenceOf = (event: Reference) => readField<number>('sequence', event) ?? 0
  return [...existing, ...added].sort((a, b) => sequenceOf(a) - sequenceOf(b))
}
