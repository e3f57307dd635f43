import { join } from 'node:path'
import { ForgeError } from '../forge-error.ts'

/*
 * How the local forge lies on the disk. Folders have lower-case names, so that names compare without case on every
 * file system; how they are spelled is in the records.
 *
 *   <folder>/.tmp/<mark>                          repositories while they are built
 *   <folder>/<org>/organization.json              OrganizationRecord
 *   <folder>/<org>/<repo>.git/                    a bare git repository, and in it:
 *     shipcast/repository.json                    RepositoryRecord
 *     shipcast/tmp/<mark>                         files while they are written
 */

export interface OrganizationRecord {
  id: string
  login: string
  createdAt: string
}

export interface RepositoryRecord {
  id: string
  owner: string
  name: string
  visibility: 'PUBLIC' | 'PRIVATE'
  description: string | null
  /** Whose wish it was. */
  intentId: string
  createdAt: string
}

const ORGANIZATION_NAME = /^[a-z0-9][a-z0-9._-]{0,99}$/
const REPOSITORY_NAME = /^[a-z0-9._-]{1,100}$/

export function organizationFolder(folder: string, login: string): string {
  const key = login.toLowerCase()
  if (!ORGANIZATION_NAME.test(key)) throw invalidNameError('an organization', login)
  return join(folder, key)
}

export function repositoryFolder(folder: string, owner: string, name: string): string {
  const key = name.toLowerCase()
  if (!REPOSITORY_NAME.test(key) || key === '.' || key === '..' || key.endsWith('.git')) {
    throw invalidNameError('a repository', name)
  }
  return join(organizationFolder(folder, owner), `${key}.git`)
}

/** The ref of a branch, by the rules of git-check-ref-format(1). */
export function branchRef(branch: string): string {
  const segments = branch.split('/')
  const isValid =
    // biome-ignore lint/suspicious/noControlCharactersInRegex: git forbids them
    !/[\u0000-\u0020\u007f~^:?*[\\]|\.\.|@\{|^-|^@$|\.$/.test(branch) &&
    segments.every((segment) => segment !== '' && !segment.startsWith('.') && !segment.endsWith('.lock'))
  if (!isValid) throw invalidNameError('a branch', branch)
  return `refs/heads/${branch}`
}

function invalidNameError(what: string, name: string): ForgeError {
  return new ForgeError('INVALID_NAME', `"${name}" cannot be the name of ${what}.`)
}
