import { type FieldMergeFunction, InMemoryCache, type Reference } from '@apollo/client'
import type { DeploymentStateFragment, EventStateFragment } from '../gql/graphql.ts'
import { graphql } from '../gql/index.ts'

/** Everything about a deployment that changes. Whoever fetches one asks for all of it, so that a cached state is whole. */
export const DeploymentState = graphql(`
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
    requestedByKind
    warnings
    warningCount
    createdAt
    updatedAt
    finishedAt
  }
`)

export const EventState = graphql(`
  fragment EventState on DeploymentEvent {
    deploymentId
    sequence
    step
    status
    text
    at
  }
`)

const HeldEvents = graphql(`
  fragment HeldEvents on Deployment {
    id
    events {
      ...EventState @unmask
    }
  }
`)

/**
 * The one place where deployments are kept. States come from three sides (events, results of mutations, answers to
 * queries) and may overtake each other; the one with the highest sequence stays, whichever came last.
 */
export class DeploymentCache extends InMemoryCache {
  // A list that was asked for before a deployment began, and answered after its event came, does not contain it.
  readonly #appeared = new Set<string>()

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
              merge: (existing, incoming, options) => this.#mergePages(existing, incoming, options),
            },
          },
        },
      },
    })
  }

  /** Takes in an event of the subscription; true when its deployment was not known before. */
  recordEvent(event: EventStateFragment, deployment: DeploymentStateFragment): boolean {
    const isNew = this.#stateOf(deployment.id) === null
    this.batch({
      update: () => {
        this.#writeEvent(event)
        this.#writeState(deployment)
      },
    })
    return isNew
  }

  /** Takes in the result of a mutation. Its event is not sent to us, so we note it ourselves. */
  recordResult(deployment: DeploymentStateFragment): void {
    const { id, sequence, step, status, text, updatedAt } = deployment
    this.batch({
      update: () => {
        this.#writeEvent({
          __typename: 'DeploymentEvent',
          deploymentId: id,
          sequence,
          step,
          status,
          text,
          at: updatedAt,
        })
        this.#writeState(deployment)
      },
    })
  }

  /** Replaces each deployment in an answer that is older than what is known by now. */
  keepNewest<T>(data: T): T {
    if (Array.isArray(data)) return data.map((item) => this.keepNewest(item)) as T
    if (typeof data !== 'object' || data === null) return data
    const fields = Object.entries(data).map(([key, value]) => [key, this.keepNewest(value)])
    const copy = Object.fromEntries(fields)
    if (copy.__typename !== 'Deployment') return copy
    const known = this.#stateOf(copy.id)
    return known && known.sequence > copy.sequence ? { ...copy, ...known } : copy
  }

  /** The sequence after which events of this deployment are missing; null when all are held. */
  missingAfter(id: string): number | null {
    const state = this.#stateOf(id)
    if (!state) return 0
    const events = this.readFragment({
      fragment: HeldEvents,
      fragmentName: 'HeldEvents',
      id: key(id),
    })?.events
    const held = new Set(events?.map((event) => event.sequence))
    for (let sequence = 1; sequence <= state.sequence; sequence++) {
      if (!held.has(sequence)) return sequence - 1
    }
    return null
  }

  forgetAppearances(): void {
    this.#appeared.clear()
  }

  #stateOf(id: string): DeploymentStateFragment | null {
    return this.readFragment({ fragment: DeploymentState, id: key(id) })
  }

  #writeState(deployment: DeploymentStateFragment): void {
    const known = this.#stateOf(deployment.id)
    if (known && known.sequence >= deployment.sequence) return
    this.writeFragment({ fragment: DeploymentState, id: key(deployment.id), data: deployment })
    this.#noteAppearance(deployment.id)
    this.#addToLists(deployment)
  }

  #writeEvent(event: EventStateFragment): void {
    this.writeFragment({
      fragment: HeldEvents,
      fragmentName: 'HeldEvents',
      id: key(event.deploymentId),
      data: { __typename: 'Deployment', id: event.deploymentId, events: [event] },
    })
  }

  #noteAppearance(id: string): void {
    this.#appeared.delete(id)
    this.#appeared.add(id)
    const [oldest] = this.#appeared
    if (this.#appeared.size > mostAppearances && oldest) this.#appeared.delete(oldest)
  }

  #addToLists({ id, status, createdAt }: DeploymentStateFragment): void {
    this.modify<{ deployments: Page }>({
      fields: {
        deployments: (value, { storeFieldName, readField }) => {
          const page = value as unknown as Page
          if (!matches(status, statusesIn(storeFieldName))) return page
          const known = page.edges.some((edge) => edge.node.__ref === key(id))
          return known ? page : (insert(page, { __ref: key(id) }, createdAt, readField) as never)
        },
      },
    })
  }

  #mergePages: FieldMergeFunction<Page> = (existing, incoming, { args, readField }) => {
    const merged = joinPages(existing, incoming, Boolean(args?.after), readField)
    const wanted = (args?.status ?? null) as string[] | null
    const held = new Set(merged.edges.map((edge) => edge.node.__ref))
    let page = merged
    for (const id of this.#appeared) {
      const node = { __ref: key(id) }
      if (held.has(node.__ref) || !matches(readField<string>('status', node), wanted)) continue
      page = insert(page, node, readField<string>('createdAt', node) ?? '', readField)
    }
    return page
  }
}

const mostAppearances = 500

interface Page {
  edges: readonly { __typename?: 'DeploymentEdge'; node: Reference }[]
  pageInfo: { hasNextPage: boolean; endCursor: string | null }
}

type ReadField = <T>(name: string, from: Reference) => T | undefined

function key(id: string): string {
  return `Deployment:${id}`
}

function matches(status: string | undefined, wanted: string[] | null): boolean {
  return !wanted || (status !== undefined && wanted.includes(status))
}

/** Which statuses a cached list was asked for; its store name is `deployments:{"status":[…]}`. */
function statusesIn(storeFieldName: string): string[] | null {
  const start = storeFieldName.indexOf('{')
  return start < 0 ? null : (JSON.parse(storeFieldName.slice(start)).status ?? null)
}

/** Newest first. One that is older than the last known stays out while the server has more: "load more" brings it. */
function insert(page: Page, node: Reference, createdAt: string, readField: ReadField): Page {
  const at = page.edges.findIndex((edge) => (readField<string>('createdAt', edge.node) ?? '') <= createdAt)
  if (at < 0 && page.pageInfo.hasNextPage) return page
  const edges = [...page.edges]
  edges.splice(at < 0 ? edges.length : at, 0, { __typename: 'DeploymentEdge', node })
  return { ...page, edges }
}

function joinPages(
  existing: Page | undefined,
  incoming: Page,
  isNextPage: boolean,
  readField: ReadField,
): Page {
  if (!existing) return incoming
  const held = new Set(existing.edges.map((edge) => edge.node.__ref))
  const overlaps = incoming.edges.some((edge) => held.has(edge.node.__ref))
  // A first page, asked for anew, that has nothing in common with what is held: in between, some are unknown.
  if (!isNextPage && !overlaps && incoming.pageInfo.hasNextPage) return incoming
  const createdAt = (edge: Page['edges'][number]) => readField<string>('createdAt', edge.node) ?? ''
  const edges = [...existing.edges, ...incoming.edges.filter((edge) => !held.has(edge.node.__ref))]
  edges.sort((a, b) => createdAt(b).localeCompare(createdAt(a)))
  return { ...existing, edges, pageInfo: isNextPage ? incoming.pageInfo : existing.pageInfo }
}

const mergeEvents: FieldMergeFunction<readonly Reference[]> = (existing = [], incoming, { readField }) => {
  const held = new Set(existing.map((event) => event.__ref))
  const added = incoming.filter((event) => !held.has(event.__ref))
  const sequence = (event: Reference) => readField<number>('sequence', event) ?? 0
  return [...existing, ...added].sort((a, b) => sequence(a) - sequence(b))
}
