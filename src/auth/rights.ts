import { type Grant, type Organizations, ROLES, type Role } from '../config/grants.ts'

export type { Organizations } from '../config/grants.ts'

/** The sum of a subject's grants. */
interface Rights {
  /** The highest. */
  role: Role
  sees: Organizations
  deploysTo: Organizations
}

/** Distinguishes subjects with equal names: people choose their own. */
export const SUBJECT_KINDS = ['PERSON', 'SERVICE', 'LOCAL', 'COMMAND'] as const
export type SubjectKind = (typeof SUBJECT_KINDS)[number]

export function subjectKind(id: string): SubjectKind {
  if (id === 'local') return 'LOCAL'
  if (id === 'command') return 'COMMAND'
  return id.startsWith('service:') ? 'SERVICE' : 'PERSON'
}

/** A person or service that sends requests. */
export interface Subject {
  /** Stays the same over sessions and tokens: `local`, `command`, `service:ci`, `user:<issuer>#<sub>`. */
  id: string
  /** For display. */
  name: string
  rights: Rights
}

/** Everyone on this machine, where access is not configured. */
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

/** Whether these rights have this role, or a higher one. */
export function hasRole(rights: Rights, role: Role): boolean {
  return ROLES.indexOf(rights.role) >= ROLES.indexOf(role)
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

export function areRightsEqual(one: Rights, other: Rights): boolean {
  return JSON.stringify(one) === JSON.stringify(other)
}

/** Sorted, so that equal rights are equal as JSON: grants come in any order, and may overlap. */
function union(grants: readonly Grant[]): Organizations {
  const names = new Set<string>()
  for (const { orgs } of grants) {
    if (orgs === 'all') return 'all'
    for (const org of orgs) names.add(org.toLowerCase())
  }
  return [...names].sort()
}
