export const ROLES = ['viewer', 'deployer', 'admin'] as const
/** `viewer` sees; `deployer` also deploys, and cancels and retries its own; `admin` all. */
export type Role = (typeof ROLES)[number]

/** Names in small letters, sorted; or every organization there is. */
export type Organizations = readonly string[] | 'all'

/** One reason to be let in: a role, in some organizations or in all. Kept as JSON. */
export interface Grant {
  role: Role
  orgs: Organizations
}

/** What all grants of a subject come to. */
export interface Rights {
  /** The highest. */
  role: Role
  sees: Organizations
  deploysTo: Organizations
}

/** What a subject is. Names are for people and may be chosen by them; this is not. */
export const SUBJECT_KINDS = ['PERSON', 'SERVICE', 'LOCAL', 'COMMAND'] as const
export type SubjectKind = (typeof SUBJECT_KINDS)[number]

export function subjectKind(id: string): SubjectKind {
  if (id === 'local') return 'LOCAL'
  if (id === 'command') return 'COMMAND'
  return id.startsWith('service:') ? 'SERVICE' : 'PERSON'
}

/** Who asks, and what they may do. */
export interface Subject {
  /** Stays the same over sessions and tokens: `local`, `command`, `service:ci`, `user:<issuer>#<sub>`. */
  id: string
  /** For people. */
  name: string
  rights: Rights
}

/** Everybody on this machine, where no accounts are needed. */
export const LOCAL_SUBJECT: Subject = {
  id: 'local',
  name: 'local',
  rights: { role: 'admin', sees: 'all', deploysTo: 'all' },
}

export function rightsOf(grants: readonly Grant[]): Rights {
  const isAdmin = grants.some(({ role }) => role === 'admin')
  if (isAdmin) return LOCAL_SUBJECT.rights
  const deployers = grants.filter(({ role }) => role === 'deployer')
  return {
    role: deployers.length > 0 ? 'deployer' : 'viewer',
    sees: union(grants),
    deploysTo: union(deployers),
  }
}

export function includesOrg(organizations: Organizations, org: string): boolean {
  return organizations === 'all' || organizations.includes(org.toLowerCase())
}

/** Whether a subject may cancel or retry a deployment that it sees. */
export function canManage(
  { id, rights }: Subject,
  deployment: { org: string; requestedBy: { id: string } | null },
): boolean {
  if (rights.role === 'admin') return true
  return includesOrg(rights.deploysTo, deployment.org) && deployment.requestedBy?.id === id
}

/** Equal for equal rights: grants are given in any order, and may overlap. */
export function areRightsEqual(one: Rights, other: Rights): boolean {
  return JSON.stringify(one) === JSON.stringify(other)
}

function union(grants: readonly Grant[]): Organizations {
  const names = new Set<string>()
  for (const { orgs } of grants) {
    if (orgs === 'all') return 'all'
    for (const org of orgs) names.add(org.toLowerCase())
  }
  return [...names].sort()
}
