import { join } from 'node:path'
import { ForgeError } from '../forge-error.ts'
import { validateBranch, validateOrg, validateRepo } from '../repository-names.ts'

/*
 * How the local forge stores its repositories. Folder names are lower-case, so that names compare without case on every
 * file system; the records hold the original spelling.
 *
 *   <folder>/.tmp/<tag>                           repositories being built
 *   <folder>/<org>/organization.json              OrganizationRecord
 *   <folder>/<org>/<repo>.git/                    a bare git repository, and in it:
 *     shipcast/repository.json                    RepositoryRecord
 *     shipcast/tmp/<tag>                          files being written
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
  /** The intent that created it. */
  intentId: string
  createdAt: string
}

export function organizationFolder(folder: string, login: string): string {
  rejectInvalidName('organization', login, validateOrg(login))
  return join(folder, login.toLowerCase())
}

export function repositoryFolder(folder: string, owner: string, name: string): string {
  rejectInvalidName('repository', name, validateRepo(name))
  return join(organizationFolder(folder, owner), `${name.toLowerCase()}.git`)
}

export function branchRef(branch: string): string {
  rejectInvalidName('branch', branch, validateBranch(branch))
  return `refs/heads/${branch}`
}

function rejectInvalidName(kind: string, name: string, reasons: readonly string[]): void {
  const [reason] = reasons
  if (reason !== undefined) throw new ForgeError('INVALID_NAME', `The ${kind} name "${name}" ${reason}.`)
}
