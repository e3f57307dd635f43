import { gql } from '@apollo/client'
import { beforeEach, describe, expect, test } from '@jest/globals'
import type { DeploymentStateFragment, DeploymentStatus, EventStateFragment } from '../gql/graphql.ts'
import { DeploymentCache } from './deployment-cache.ts'

const LIST = gql`
  query List($first: Int, $after: String, $status: [DeploymentStatus!]) {
    deployments(first: $first, after: $after, status: $status) {
      edges {
        node {
          id
          status
          sequence
          createdAt
        }
      }
      pageInfo {
        hasNextPage
        endCursor
      }
    }
  }
`

const HISTORY = gql`
  query History($id: ID!) {
    deployment(id: $id) {
      id
      sequence
      status
      events {
        deploymentId
        sequence
        text
      }
    }
  }
`

let cache: DeploymentCache

beforeEach(() => {
  cache = new DeploymentCache()
})

function deployment(
  id: string,
  sequence: number,
  status: DeploymentStatus = 'RUNNING',
): DeploymentStateFragment {
  return {
    __typename: 'Deployment',
    id,
    sequence,
    status,
    org: 'acme',
    repo: `repo-${id}`,
    visibility: 'PRIVATE',
    description: null,
    branch: 'main',
    step: 'CREATE_ORG',
    text: `text ${sequence}`,
    attempt: 1,
    progress: null,
    waitingUntil: null,
    error: null,
    repositoryUrl: null,
    cloneUrl: null,
    commitSha: null,
    fileCount: 1,
    sizeBytes: 1,
    requestedBy: 'alice',
    requestedById: 'a1',
    requestedByKind: 'PERSON',
    warnings: [],
    warningCount: 0,
    createdAt: `2026-01-01T12:00:0${id}Z`,
    updatedAt: '2026-01-01T12:00:00Z',
    finishedAt: null,
  }
}

function event({ id, sequence, step, status, text, updatedAt }: DeploymentStateFragment): EventStateFragment {
  return { __typename: 'DeploymentEvent', deploymentId: id, sequence, step, status, text, at: updatedAt }
}

function record(state: DeploymentStateFragment): boolean {
  return cache.recordEvent(event(state), state)
}

function writeList(states: DeploymentStateFragment[], status?: DeploymentStatus[], hasNextPage = false) {
  cache.writeQuery({
    query: LIST,
    variables: { first: 20, status },
    data: {
      deployments: {
        __typename: 'DeploymentConnection',
        edges: states.map((node) => ({ __typename: 'DeploymentEdge', node })),
        pageInfo: { __typename: 'PageInfo', hasNextPage, endCursor: null },
      },
    },
  })
}

function listed(status?: DeploymentStatus[]): string[] | undefined {
  const data = cache.readQuery<{ deployments: { edges: { node: { id: string } }[] } }>({
    query: LIST,
    variables: { first: 20, status },
  })
  return data?.deployments.edges.map(({ node }) => node.id)
}

function stored(id: string) {
  type History = { deployment: { sequence: number; status: string; events: { sequence: number }[] } }
  return cache.readQuery<History>({ query: HISTORY, variables: { id } })?.deployment
}

describe('states that overtake each other', () => {
  test('an older event does not replace a newer state, but completes the history', () => {
    record(deployment('1', 3, 'SUCCEEDED'))
    record(deployment('1', 2))
    expect(stored('1')).toMatchObject({ sequence: 3, status: 'SUCCEEDED' })
    expect(stored('1')?.events.map(({ sequence }) => sequence)).toEqual([2, 3])
  })

  test('an older query result takes the newer state from the cache, at any depth', () => {
    record(deployment('1', 3, 'SUCCEEDED'))
    const result = { deployments: { edges: [{ node: deployment('1', 2) }, { node: deployment('2', 1) }] } }
    const nodes = cache.keepNewest(result).deployments.edges.map(({ node }) => node)
    expect(nodes[0]).toMatchObject({ sequence: 3, status: 'SUCCEEDED' })
    expect(nodes[1]).toEqual(deployment('2', 1))
  })

  test('a newer query result is kept', () => {
    record(deployment('1', 2))
    expect(cache.keepNewest(deployment('1', 3))).toEqual(deployment('1', 3))
  })

  test('the result of a mutation counts as its event', () => {
    record(deployment('1', 1))
    cache.recordResult(deployment('1', 2, 'CANCELLED'))
    expect(stored('1')?.events.map(({ sequence }) => sequence)).toEqual([1, 2])
    expect(cache.missingAfter('1')).toBeNull()
  })

  test('only the first event of an unknown deployment is new', () => {
    expect(record(deployment('1', 1))).toBe(true)
    expect(record(deployment('1', 2))).toBe(false)
  })
})

test('names the event after which the history has a gap', () => {
  expect(cache.missingAfter('1')).toBe(0)
  record(deployment('1', 1))
  expect(cache.missingAfter('1')).toBeNull()
  record(deployment('1', 4))
  expect(cache.missingAfter('1')).toBe(1)
  record(deployment('1', 2))
  expect(cache.missingAfter('1')).toBe(2)
})

describe('the lists', () => {
  test('gain a new deployment where its status belongs', () => {
    writeList([deployment('1', 1, 'FAILED')])
    writeList([deployment('1', 1, 'FAILED')], ['FAILED'])
    record(deployment('2', 1))
    expect(listed()).toEqual(['2', '1'])
    expect(listed(['FAILED'])).toEqual(['1'])
    record(deployment('2', 2, 'FAILED'))
    expect(listed(['FAILED'])).toEqual(['2', '1'])
  })

  test('contain a deployment whose event arrived before the result of an older query', () => {
    record(deployment('2', 1))
    writeList([deployment('1', 1)])
    writeList([], ['FAILED'])
    expect(listed()).toEqual(['2', '1'])
    expect(listed(['FAILED'])).toEqual([])
  })

  test('do not regain deployments of a log that was replaced', () => {
    record(deployment('2', 1))
    cache.forgetRecent()
    writeList([deployment('1', 1)])
    expect(listed()).toEqual(['1'])
  })
})
