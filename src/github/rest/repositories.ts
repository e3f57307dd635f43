import { z } from 'zod'
import { ForgeError } from '../forge-error.ts'
import type { EnsureRepositoryInput } from '../github-client.ts'
import { isSameName, repositoryPath } from './endpoints.ts'
import { type ApiResponse, type GitHubApi, Id, parseBody } from './github-api.ts'
import { parseErrorBody, toForgeError } from './github-errors.ts'
import { pollUntilFound, type RetrySchedule } from './retry-schedule.ts'

/** GET /repos/{owner}/{repo}, and the response to creating one. */
export const RepositoryBody = z
  .object({
    id: Id,
    owner: z.object({ login: z.string() }),
    name: z.string(),
    full_name: z.string(),
    private: z.boolean(),
    visibility: z.string().optional(),
    homepage: z.string().nullish(),
    html_url: z.url(),
    clone_url: z.url(),
  })
  .transform((body) => {
    const visibility = body.visibility === 'internal' ? 'INTERNAL' : body.private ? 'PRIVATE' : 'PUBLIC'
    return {
      /** Survives renames and transfers. */
      id: body.id,
      owner: body.owner.login,
      name: body.name,
      fullName: body.full_name,
      visibility,
      homepage: body.homepage || null,
      url: body.html_url,
      cloneUrl: body.clone_url,
    } as const
  })
export type RepositoryFacts = z.output<typeof RepositoryBody>

type RepositoryName = { owner: string; name: string }

/**
 * The created repository; or, if it was not created or the response was lost, the
 * existing one with that name.
 */
interface CreationResult {
  isCreated: boolean
  repository: RepositoryFacts
}

/** Resolves to no host (RFC 2606); removed as soon as the contents are pushed. */
const OWNERSHIP_MARKER_PREFIX = 'https://shipcast.invalid/deployments/'

/**
 * Repositories, by GitHub's REST API.
 *
 * The request that creates a repository also sets its homepage to the deployment's ownership marker: GitHub
 * stores both or neither. After a crash or a lost response, the marker proves that the repository belongs to
 * the deployment. That it is new or empty would not prove it: a person may have created it a second ago.
 */
export class Repositories {
  private readonly api: GitHubApi
  private readonly retrySchedule: RetrySchedule

  constructor(api: GitHubApi, retrySchedule: RetrySchedule) {
    this.api = api
    this.retrySchedule = retrySchedule
  }

  /** Null if it does not exist or is not visible to us. A former name finds the renamed repository. */
  async find({ owner, name }: RepositoryName, signal: AbortSignal): Promise<RepositoryFacts | null> {
    const response = await this.api.call({
      method: 'GET',
      path: repositoryPath({ owner, name }),
      owner,
      action: `find the repository ${owner}/${name}`,
      signal,
    })
    if (response.status === 404) return null
    if (response.status !== 200) throw toForgeError(response, response.description)
    return parseBody(response, RepositoryBody)
  }

  /**
   * Creates an empty repository in the organization or in the token's own account. After any other response
   * than "created", a lookup decides.
   */
  async create(
    input: EnsureRepositoryInput,
    isOwnAccount: boolean,
    signal: AbortSignal,
  ): Promise<CreationResult> {
    const { owner, name, description, visibility, intentId } = input
    let failure: ForgeError
    let delaysMs = this.retrySchedule.verifyDelaysMs
    try {
      const response = await this.api.call({
        method: 'POST',
        path: isOwnAccount ? '/user/repos' : `/orgs/${encodeURIComponent(owner)}/repos`,
        owner,
        body: {
          name,
          ...(description !== null && { description }),
          homepage: ownershipMarker(intentId),
          private: visibility === 'PRIVATE',
          auto_init: false,
        },
        action: `create the repository ${owner}/${name}`,
        isCreation: true,
        signal,
      })
      if (response.status === 201) return { isCreated: true, repository: parseBody(response, RepositoryBody) }
      failure = toCreationError(response, owner)
      if (failure.code !== 'TRANSIENT') {
        if (response.status === 401 || response.status === 403) throw failure
        // Our own create, a moment ago, may have taken the name although GitHub does not
        // show it yet: poll longer.
        if (!mayConcernName(response)) delaysMs = delaysMs.slice(0, 1)
      }
    } catch (error) {
      signal.throwIfAborted()
      if (!(error instanceof ForgeError) || error.code !== 'TRANSIENT') throw error
      failure = error
    }
    const repository = await pollUntilFound(delaysMs, signal, () => this.find(input, signal))
    if (repository === null) throw failure
    return { isCreated: false, repository }
  }

  /** To be called after the push: the contents then identify the repository instead. */
  async clearMarker({ owner, name }: RepositoryName, signal: AbortSignal): Promise<void> {
    await this.api.expect(200, {
      method: 'PATCH',
      path: repositoryPath({ owner, name }),
      owner,
      body: { homepage: '' },
      action: `clear the homepage of ${owner}/${name}`,
      signal,
    })
  }
}

export function ownershipMarker(intentId: string): string {
  return `${OWNERSHIP_MARKER_PREFIX}${encodeURIComponent(intentId)}`
}

export function hasOwnershipMarker({ homepage }: RepositoryFacts): boolean {
  return homepage?.startsWith(OWNERSHIP_MARKER_PREFIX) === true
}

/** False if the repository was found by a former name. */
export function hasCurrentName({ owner, name }: RepositoryName, repository: RepositoryFacts): boolean {
  return isSameName(`${owner}/${name}`, `${repository.owner}/${repository.name}`)
}

/** Whether `errors: [{ field: "name" }]`, or no field is named. Does not rely on GitHub's wording. */
function mayConcernName({ status, body }: ApiResponse): boolean {
  if (status !== 422) return false
  const fields = parseErrorBody(body).errors.flatMap(({ field }) => field ?? [])
  return fields.length === 0 || fields.includes('name')
}

/** GitHub also responds 404 if the account exists but the credential has no access to it. */
function toCreationError(response: ApiResponse, owner: string): ForgeError {
  const { headers, description } = response
  if (response.status !== 404) return toForgeError(response, description)
  if (headers['x-accepted-oauth-scopes'] && headers['x-oauth-scopes'] !== undefined) {
    return toForgeError({ ...response, status: 403 }, description)
  }
  return new ForgeError(
    'ORG_MISSING',
    `The organization ${owner} does not exist, or this credential cannot create repositories there. Check its name, and that the credential's owner is a member allowed to create repositories (${description.grantHint}); then retry.`,
    { status: 404 },
  )
}
