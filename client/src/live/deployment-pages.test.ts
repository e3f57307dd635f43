import { describe, expect, test } from '@jest/globals'
import { type DeploymentPages, insertDeployment, mergePage } from './deployment-pages.ts'

/** A deployment's name is also the time it was created. */
const createdAtOf = ({ __ref }: { __ref: string }) => __ref

function pages(names: string, hasNextPage = false): DeploymentPages {
  return {
    edges: [...names].map((__ref) => ({ __typename: 'DeploymentEdge', node: { __ref } })),
    pageInfo: { hasNextPage, endCursor: names.at(-1) ?? null },
  }
}

function namesOf({ edges }: DeploymentPages): string {
  return edges.map(({ node }) => node.__ref).join('')
}

describe('a page from the server', () => {
  test('is the list if it is the first one', () => {
    expect(mergePage(undefined, pages('fe', true), false, createdAtOf)).toEqual(pages('fe', true))
  })

  test('follows the pages before it; the list then ends where the page ends', () => {
    const merged = mergePage(pages('fe', true), pages('dc', false), true, createdAtOf)
    expect(namesOf(merged)).toBe('fedc')
    expect(merged.pageInfo).toEqual({ hasNextPage: false, endCursor: 'c' })
  })

  test('repeats no deployment that is in the list already', () => {
    expect(namesOf(mergePage(pages('fed', true), pages('dc'), true, createdAtOf))).toBe('fedc')
  })

  test('refetched, keeps the pages loaded after it', () => {
    const merged = mergePage(pages('dcba', false), pages('fedc', true), false, createdAtOf)
    expect(namesOf(merged)).toBe('fedcba')
    expect(merged.pageInfo).toEqual({ hasNextPage: false, endCursor: 'a' })
  })

  test('refetched without overlap, replaces the list: what is in between is unknown', () => {
    expect(namesOf(mergePage(pages('cba'), pages('hg', true), false, createdAtOf))).toBe('hg')
  })

  test('refetched without overlap, but complete, is merged', () => {
    expect(namesOf(mergePage(pages('b'), pages('hg', false), false, createdAtOf))).toBe('hgb')
  })
})

describe('a deployment from an event', () => {
  const insert = (into: DeploymentPages, __ref: string) =>
    namesOf(insertDeployment(into, { __ref }, createdAtOf))

  test('is inserted by time', () => {
    expect(insert(pages('db'), 'e')).toBe('edb')
    expect(insert(pages('db'), 'c')).toBe('dcb')
    expect(insert(pages('db'), 'a')).toBe('dba')
    expect(insert(pages(''), 'a')).toBe('a')
  })

  test('is not repeated', () => {
    expect(insert(pages('db'), 'b')).toBe('db')
  })

  test('waits for its page if it is older than the pages loaded so far', () => {
    expect(insert(pages('db', true), 'a')).toBe('db')
    expect(insert(pages('db', true), 'c')).toBe('dcb')
  })

  test('leaves the list it was given unchanged', () => {
    const before = pages('db')
    insertDeployment(before, { __ref: 'c' }, createdAtOf)
    expect(before).toEqual(pages('db'))
  })
})
