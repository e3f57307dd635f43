import { type Grant, ROLES } from './rights.ts'

const ORG_NAME_PATTERN = /^[A-Za-z0-9](?:[A-Za-z0-9-]{0,98}[A-Za-z0-9])?$/

/**
 * Reads `platform-team=admin; developers=deployer:acme,acme-labs; staff=viewer`: for each group of a provider a role,
 * and the organizations in which it holds. Without any, a viewer sees all; a deployer has to name them, or `*`.
 * The end of a sentence that begins with the setting's name when it cannot be read.
 */
export function parseRoleMapping(text: string): Map<string, Grant[]> | string {
  const roles = new Map<string, Grant[]>()
  for (const line of text.split(/[;\n]/)) {
    if (line.trim() === '') continue
    const [, group, role, orgs] = /^\s*(.+?)\s*=\s*([a-z]+)\s*(?::\s*(.*?))?\s*$/i.exec(line) ?? []
    if (group === undefined || role === undefined)
      return `has a part that is not GROUP=ROLE: "${line.trim()}"`
    const grant = parseGrant(role, orgs?.split(','))
    if (typeof grant === 'string') return `says of "${group}" that ${grant}`
    const key = group.toLowerCase()
    roles.set(key, [...(roles.get(key) ?? []), grant])
  }
  return roles
}

/**
 * The same by provider and group, `github:acme/platform`: anybody can found an organization on GitHub that has the
 * name of another provider's group. Where there are two providers each group has to say whose it is.
 */
export function qualifyGroupsByProvider(
  roles: ReadonlyMap<string, Grant[]>,
  providers: readonly string[],
): Map<string, Grant[]> | string {
  const owned = new Map<string, Grant[]>()
  for (const [group, grants] of roles) {
    const hasOwner = providers.some((provider) => group.startsWith(`${provider}:`))
    if (!hasOwner && providers.length > 1) {
      const names = providers.map((provider) => `${provider}:${group}`).join(' or ')
      return `has the group "${group}", which each of the providers may have; say ${names}`
    }
    const key = hasOwner ? group : `${providers[0] ?? ''}:${group}`
    owned.set(key, [...(owned.get(key) ?? []), ...grants])
  }
  return owned
}

/** What is wrong with it, as a sentence without its end, when it is no role that somebody can have. */
export function parseGrant(role: string, orgs: readonly string[] | undefined): Grant | string {
  const known = ROLES.find((name) => name === role.trim().toLowerCase())
  if (!known) return `the role is "${role}"; it must be one of ${ROLES.join(', ')}`
  const names = (orgs ?? []).map((org) => org.trim()).filter((org) => org !== '')
  if (known === 'admin') {
    return names.length > 0
      ? 'an admin is of some organizations; admins are of all'
      : { role: known, orgs: 'all' }
  }
  if (names.includes('*')) return { role: known, orgs: 'all' }
  const bad = names.find((name) => !ORG_NAME_PATTERN.test(name))
  if (bad !== undefined)
    return `"${bad.slice(0, 100)}" is an organization; no organization can have that name`
  if (names.length > 0) return { role: known, orgs: names.map((name) => name.toLowerCase()).sort() }
  if (orgs !== undefined || known === 'deployer') {
    return known === 'deployer'
      ? 'a deployer is of no organization; name those that it deploys to, or * for all'
      : 'it has no organizations behind the colon; name them, or leave the colon out for all'
  }
  return { role: known, orgs: 'all' }
}
