/** From the least to the most powerful. */
export const ROLES = ['viewer', 'deployer', 'admin'] as const
/** A viewer sees deployments; a deployer creates, cancels and retries its own; an admin can do everything. */
export type Role = (typeof ROLES)[number]

/** Names in lower case, sorted; or every organization. */
export type Organizations = readonly string[] | 'all'

/** A role in some organizations or in all. Stored as JSON. */
export interface Grant {
  role: Role
  orgs: Organizations
}

/** A role or role mapping that cannot be used. The message completes a sentence that names its source. */
export class InvalidGrantError extends Error {
  override readonly name = 'InvalidGrantError'
}

const ORG_NAME_PATTERN = /^[A-Za-z0-9](?:[A-Za-z0-9-]{0,98}[A-Za-z0-9])?$/

/**
 * Parses `platform-team=admin; developers=deployer:acme,acme-labs; staff=viewer`: for each group of a sign-in
 * provider, a role and the organizations that it applies to. A viewer without organizations sees all; a
 * deployer must list them, or `*`. Keys are qualified by provider, `github:acme/platform`: anyone can create
 * an organization on GitHub with the name of another provider's group. With two providers, each group must
 * name its own.
 * @throws InvalidGrantError
 */
export function parseRoleMapping(text: string, providers: readonly string[]): Map<string, Grant[]> {
  const grantsByGroup = new Map<string, Grant[]>()
  for (const line of text.split(/[;\n]/)) {
    if (line.trim() === '') continue
    const { group, grant } = parseRoleLine(line)
    const key = qualifyByProvider(group, providers)
    grantsByGroup.set(key, [...(grantsByGroup.get(key) ?? []), grant])
  }
  return grantsByGroup
}

function parseRoleLine(line: string): { group: string; grant: Grant } {
  const [, group, role, orgs] = /^\s*(.+?)\s*=\s*([a-z]+)\s*(?::\s*(.*?))?\s*$/i.exec(line) ?? []
  if (group === undefined || role === undefined) {
    throw new InvalidGrantError(`has a part that is not GROUP=ROLE: "${line.trim()}"`)
  }
  try {
    return { group: group.toLowerCase(), grant: parseGrant(role, orgs?.split(',')) }
  } catch (error) {
    if (!(error instanceof InvalidGrantError)) throw error
    throw new InvalidGrantError(`has an invalid role for "${group}": ${error.message}`)
  }
}

function qualifyByProvider(group: string, providers: readonly string[]): string {
  if (providers.some((provider) => group.startsWith(`${provider}:`))) return group
  if (providers.length > 1) {
    const names = providers.map((provider) => `${provider}:${group}`).join(' or ')
    throw new InvalidGrantError(`has the group "${group}", which both providers may have; write ${names}`)
  }
  return `${providers[0] ?? ''}:${group}`
}

/** @throws InvalidGrantError */
export function parseGrant(roleName: string, orgNames: readonly string[] | undefined): Grant {
  const role = ROLES.find((name) => name === roleName.trim().toLowerCase())
  if (!role) throw new InvalidGrantError(`"${roleName}" is not one of ${ROLES.join(', ')}`)
  const orgs = (orgNames ?? []).map((org) => org.trim()).filter((org) => org !== '')
  if (role === 'admin') {
    if (orgs.length > 0) throw new InvalidGrantError('admin cannot be limited to organizations')
    return { role, orgs: 'all' }
  }
  if (orgs.includes('*')) return { role, orgs: 'all' }
  const invalid = orgs.find((name) => !ORG_NAME_PATTERN.test(name))
  if (invalid !== undefined) {
    throw new InvalidGrantError(`"${invalid.slice(0, 100)}" is not a valid organization name`)
  }
  if (orgs.length > 0) return { role, orgs: orgs.map((name) => name.toLowerCase()).sort() }
  if (role === 'deployer') {
    throw new InvalidGrantError('deployer requires organizations; list them, or use * for all')
  }
  if (orgNames !== undefined) {
    throw new InvalidGrantError('no organizations follow the colon; list them, or omit the colon for all')
  }
  return { role, orgs: 'all' }
}
