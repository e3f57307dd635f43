import { ForgeError } from '../forge-error.ts'
import type { EnsureRepositoryInput } from '../github-client.ts'
import { type RepositoryFacts, repositoryOf } from './accounts.ts'
import { checkRepositoryName, isSameName, repositoryPath } from './endpoints.ts'
import type { ApiResponse, GitHubApi } from './github-api.ts'
import { isObject, toForgeError } from './github-errors.ts'
import { pollUntilFound, type RetrySchedule } from './retry-schedule.ts'

type RepositoryName = { owner: string; name: string }

/** What became of a wish for a new repository. */
export type Creation =
  | { isCreated: true; repository: RepositoryFacts }
  /** It was not, or nobody knows; and this is what is there of that name. */
  | { isCreated: false; repository: RepositoryFacts }

/** Leads nowhere (RFC 2606), and is taken off again as soon as the contents are there. */
const OWNERSHIP_MARKER_PREFIX = 'https://shipcast.invalid/deployments/'

/**
 * Repositories, by GitHub's REST API.
 *
 * A repository that is being deployed to carries the deployment's mark as its homepage, from the very request that
 * creates it: GitHub stores both or neither. That is what proves it ours after a crash or a lost answer. Neither its
 * age nor its being empty would: a person may have made one a second ago.
 */
export class Repositories {
  private readonly api: GitHubApi
  private readonly retrySchedule: RetrySchedule

  constructor(api: GitHubApi, patience: RetrySchedule) {
    this.api = api
    this.retrySchedule = patience
  }

  /** Null: it is absent, or invisible to us. After a rename it is the renamed one. */
  async find({ owner, name }: RepositoryName, signal: AbortSignal): Promise<RepositoryFacts | null> {
    const answer = await this.api.call({
      method: 'GET',
      path: repositoryPath({ owner, name }),
      owner,
      action: `look for the repository ${owner}/${name}`,
      signal,
    })
    if (answer.status === 404) return null
    if (answer.status !== 200) throw toForgeError(answer, answer.description)
    return repositoryOf(answer, this.api.endpoints)
  }

  /**
   * Creates it, empty, in the organization or in the token's own account. Whatever GitHub answers but "created" is not
   * believed, but looked up: what is there decides.
   */
  async create(input: EnsureRepositoryInput, isOwnAccount: boolean, signal: AbortSignal): Promise<Creation> {
    const { owner, name, description, visibility, intentId } = input
    checkRepositoryName(name)
    let failure: ForgeError
    let looks = this.retrySchedule.verifyDelaysMs
    try {
      const answer = await this.api.call({
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
      if (answer.status === 201) {
        return { isCreated: true, repository: repositoryOf(answer, this.api.endpoints) }
      }
      failure = toCreationError(answer, owner)
      if (failure.code !== 'TRANSIENT') {
        if (answer.status === 401 || answer.status === 403) throw failure
        // The name may be in the way of a create of our own, of a moment ago, that is not shown yet.
        if (!mayBeAboutName(answer)) looks = looks.slice(0, 1)
      }
    } catch (error) {
      signal.throwIfAborted()
      if (!(error instanceof ForgeError) || error.code !== 'TRANSIENT') throw error
      failure = error
    }
    const repository = await pollUntilFound(looks, signal, () => this.find(input, signal))
    if (repository === null) throw failure
    return { isCreated: false, repository }
  }

  /** Takes the mark off, which the contents make needless: by them the repository is known from now on. */
  async clearMarker({ owner, name }: RepositoryName, signal: AbortSignal): Promise<void> {
    await this.api.expect(200, {
      method: 'PATCH',
      path: repositoryPath({ owner, name }),
      owner,
      body: { homepage: '' },
      action: `finish the repository ${owner}/${name}`,
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

/** Whether the name that was asked for is this repository's, and not one that it had before. */
export function hasCurrentName({ owner, name }: RepositoryName, repository: RepositoryFacts): boolean {
  return isSameName(`${owner}/${name}`, `${repository.owner}/${repository.name}`)
}

/** By GitHub's structure, not its words: `errors: [{ field: "name" }]`. Without fields it may be about anything. */
function mayBeAboutName({ status, json }: ApiResponse): boolean {
  if (status !== 422) return false
  const errors = isObject(json) && Array.isArray(json.errors) ? json.errors : []
  const fields = errors.flatMap((each) => (isObject(each) && each.field ? [each.field] : []))
  return fields.length === 0 || fields.includes('name')
}

/** 404 is how GitHub says "not for you" of a place that exists. */
function toCreationError(answer: ApiResponse, owner: string): ForgeError {
  if (answer.status !== 404) return toForgeError(answer, answer.description)
  const { 'x-accepted-oauth-scopes': accepted, 'x-oauth-scopes': has } = answer.headers
  if (accepted && has !== undefined) return toForgeError({ ...answer, status: 403 }, answer.description)
  return new ForgeError(
    'ORG_MISSING',
    `There is no organization ${owner} in which this credential may create repositories. Check its name, and that the credential's owner is a member who may create repositories (${answer.description.grantHint}); then retry.`,
    { status: 404 },
  )
}
