import type { Endpoints } from './endpoints.ts'
import { type ApiResponse, notGitHubError } from './github-api.ts'
import { isObject } from './github-errors.ts'

/** Whoever the token belongs to: GET /user. */
export interface Viewer {
  login: string
  id: string
  /** What a classic token may do; null for any other credential, of which GitHub does not tell. */
  scopes: ReadonlySet<string> | null
}

export function viewerOf(answer: ApiResponse): Viewer {
  const { login, id } = fields(answer)
  const scopes = answer.headers['x-oauth-scopes']
  return {
    login: requiredText(login, answer),
    id: requiredId(id, answer),
    // The header is there and empty for a classic token without scopes, and absent for a fine-grained one.
    scopes: scopes === undefined ? null : new Set(scopes.split(',').map((scope) => scope.trim())),
  }
}

/** GET /orgs/{org}. */
export interface OrganizationFacts {
  login: string
  id: string
  /** What members may create; undefined where GitHub does not tell, as it does to owners. */
  membersCanCreate: { PUBLIC: boolean | undefined; PRIVATE: boolean | undefined }
}

export function organizationOf(answer: ApiResponse): OrganizationFacts {
  const json = fields(answer)
  const flag = (value: unknown) => (typeof value === 'boolean' ? value : undefined)
  const any = flag(json.members_can_create_repositories)
  const may = (value: unknown) => (any === false ? false : flag(value))
  return {
    login: requiredText(json.login, answer),
    id: requiredId(json.id, answer),
    membersCanCreate: {
      PUBLIC: may(json.members_can_create_public_repositories),
      PRIVATE: may(json.members_can_create_private_repositories),
    },
  }
}

/** GET /repos/{owner}/{repo}, and the answer to creating one. */
export interface RepositoryFacts {
  /** Stays through renames and transfers. */
  id: string
  owner: string
  name: string
  fullName: string
  visibility: 'PUBLIC' | 'PRIVATE' | 'INTERNAL'
  homepage: string | null
  url: string
  cloneUrl: string
}

export function repositoryOf(answer: ApiResponse, addresses: Endpoints): RepositoryFacts {
  const json = fields(answer)
  const owner = isObject(json.owner) ? json.owner.login : undefined
  const fullName = requiredText(json.full_name, answer)
  const [ownerPart = '', namePart = ''] = fullName.split('/')
  const isPrivate = json.private === true
  const url = typeof json.html_url === 'string' ? json.html_url : `${addresses.web}/${fullName}`
  return {
    id: requiredId(json.id, answer),
    owner: typeof owner === 'string' ? owner : ownerPart,
    name: typeof json.name === 'string' ? json.name : namePart,
    fullName,
    visibility: json.visibility === 'internal' ? 'INTERNAL' : isPrivate ? 'PRIVATE' : 'PUBLIC',
    homepage: typeof json.homepage === 'string' && json.homepage !== '' ? json.homepage : null,
    url,
    cloneUrl: typeof json.clone_url === 'string' ? json.clone_url : `${url}.git`,
  }
}

function fields(answer: ApiResponse): Record<string, unknown> {
  if (!isObject(answer.json)) throw notGitHubError(answer)
  return answer.json
}

function requiredText(value: unknown, answer: ApiResponse): string {
  if (typeof value !== 'string' || value === '') throw notGitHubError(answer)
  return value
}

function requiredId(value: unknown, answer: ApiResponse): string {
  if (typeof value !== 'number' && typeof value !== 'string') throw notGitHubError(answer)
  return String(value)
}
