import { join } from 'node:path'
import { requireValidOrg, requireValidRepo } from '../repository-names.ts'

/*
 * How the local forge stores its repositories. Folder names are in lower case, so that names are
 * case-insensitive on every file system; the records contain the original spelling.
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
  /** The deployment that created it. */
  intentId: string
  createdAt: string
}

export function organizationFolder(folder: string, login: string): string {
  requireValidOrg(login)
  return join(folder, login.toLowerCase())
}

export function repositoryFolder(folder: string, owner: string, name: string): string {
  requireValidRepo(name)
  return join(organizationFolder(folder, owner), `${name.toLowerCase()}.git`)
}
