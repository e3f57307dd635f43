import type { Reference } from '@apollo/client'

/** A cached list of deployments: the pages loaded so far, newest first. */
export interface DeploymentPages {
  edges: readonly { __typename?: 'DeploymentEdge'; node: Reference }[]
  pageInfo: { hasNextPage: boolean; endCursor: string | null }
}

/** Resolves to an ISO time, which sorts as text. */
type CreatedAt = (node: Reference) => string | undefined

/** Adds a page from the server to the pages loaded before it. */
export function mergePage(
  existing: DeploymentPages | undefined,
  incoming: DeploymentPages,
  isNextPage: boolean,
  createdAtOf: CreatedAt,
): DeploymentPages {
  if (!existing) return incoming
  const isOverlapping = incoming.edges.some(({ node }) => includes(existing, node))
  // A refetched first page without overlap: the deployments in between are unknown, so the old pages go.
  if (!isNextPage && !isOverlapping && incoming.pageInfo.hasNextPage) return incoming
  const createdAt = (edge: DeploymentPages['edges'][number]) => createdAtOf(edge.node) ?? ''
  const edges = [...existing.edges, ...incoming.edges.filter(({ node }) => !includes(existing, node))]
  edges.sort((a, b) => createdAt(b).localeCompare(createdAt(a)))
  return { ...existing, edges, pageInfo: isNextPage ? incoming.pageInfo : existing.pageInfo }
}

/** Inserts a deployment by time. Omits one older than all loaded if the server has more pages. */
export function insertDeployment(
  pages: DeploymentPages,
  node: Reference,
  createdAtOf: CreatedAt,
): DeploymentPages {
  if (includes(pages, node)) return pages
  const createdAt = createdAtOf(node) ?? ''
  const found = pages.edges.findIndex((edge) => (createdAtOf(edge.node) ?? '') <= createdAt)
  if (found < 0 && pages.pageInfo.hasNextPage) return pages
  const index = found < 0 ? pages.edges.length : found
  return { ...pages, edges: pages.edges.toSpliced(index, 0, { __typename: 'DeploymentEdge', node }) }
}

function includes(pages: DeploymentPages, { __ref }: Reference): boolean {
  return pages.edges.some(({ node }) => node.__ref === __ref)
}
