import type { EnsureRepositoryInput } from '../github-client.ts'
import { GitHubError } from '../github-error.ts'
import { type RepositoryFacts, repositoryOf } from './accounts.ts'
import { checkRepositoryName, isSameName, repositoryPath } from './endpoints.ts'
import type { ApiAnswer, GitHubApi } from './github-api.ts'
import { explain, isObject } from './github-errors.ts'
import { lookFor, type Patience } from './patience.ts'

type Name = { owner: string; name: string }

/** What became of a wish for a new repository. */
export type Creation =
  | { isCreated: true; repository: RepositoryFacts }
  /** It was not, or nobody knows; and this is what is there of that name. */
  | { isCreated: false; repository: RepositoryFacts }

/** Leads nowhere (RFC 2606), and is taken off again as soon as the contents are there. */
const MARK = 'https://shipcast.invalid/deployments/'

/**
 * Repositories, by GitHub's REST API.
 *
 * A repository that is being deployed to carries the deployment's mark as its homepage, from the very request that
 * creates it: GitHub stores both or neither. That is what proves it ours after a crash or a lost answer. Neither its
 * age nor its being empty would: a person may have made one a second ago.
 */
export class Repositories {
  readonly #api: GitHubApi
  readonly #patience: Patience

  constructor(api: GitHubApi, patience: Patience) {
    this.#api = api
    this.#patience = patience
  }

  /** Null: it is absent, or invisible to us. After a rename it is the renamed one. */
  async find({ owner, name }: Name, signal: AbortSignal): Promise<RepositoryFacts | null> {
    const answer = await this.#api.call({
      method: 'GET',
      path: repositoryPath({ owner, name }),
      owner,
      what: `look for the repository ${owner}/${name}`,
      signal,
    })
    if (answer.status === 404) return null
    if (answer.status !== 200) throw explain(answer, answer.doing)
    return repositoryOf(answer, this.#api.addresses)
  }

  /**
   * Creates it, empty, in the organization or in the token's own account. Whatever GitHub answers but "created" is not
   * believed, but looked up: what is there decides.
   */
  async create(input: EnsureRepositoryInput, isOwnAccount: boolean, signal: AbortSignal): Promise<Creation> {
    const { owner, name, description, visibility, intentId } = input
    checkRepositoryName(name)
    let failure: GitHubError
    let looks = this.#patience.lookupMs
    try {
      const answer = await this.#api.call({
        method: 'POST',
        path: isOwnAccount ? '/user/repos' : `/orgs/${encodeURIComponent(owner)}/repos`,
        owner,
        body: {
          name,
          ...(description !== null && { description }),
          homepage: markOf(intentId),
          private: visibility === 'PRIVATE',
          auto_init: false,
        },
        what: `create the repository ${owner}/${name}`,
        isCreation: true,
        signal,
      })
      if (answer.status === 201) {
        return { isCreated: true, repository: repositoryOf(answer, this.#api.addresses) }
      }
      failure = explainRefusal(answer, owner)
      if (failure.code !== 'TRANSIENT') {
        if (answer.status === 401 || answer.status === 403) throw failure
        // The name may be in the way of a create of our own, of a moment ago, that is not shown yet.
        if (!mayBeAboutName(answer)) looks = looks.slice(0, 1)
      }
    } catch (error) {
      signal.throwIfAborted()
      if (!(error instanceof GitHubError) || error.code !== 'TRANSIENT') throw error
      failure = error
    }
    const repository = await lookFor(looks, signal, () => this.find(input, signal))
    if (repository === null) throw failure
    return { isCreated: false, repository }
  }

  /** Takes the mark off, which the contents make needless: by them the repository is known from now on. */
  async unmark({ owner, name }: Name, signal: AbortSignal): Promise<void> {
    await this.#api.expect(200, {
      method: 'PATCH',
      path: repositoryPath({ owner, name }),
      owner,
      body: { homepage: '' },
      what: `finish the repository ${owner}/${name}`,
      signal,
    })
  }
}

export function markOf(intentId: string): string {
  return `${MARK}${encodeURIComponent(intentId)}`
}

export function isMarked({ homepage }: RepositoryFacts): boolean {
  return homepage?.startsWith(MARK) === true
}

/** Whether the name that was asked for is this repository's, and not one that it had before. */
export function isNamed({ owner, name }: Name, repository: RepositoryFacts): boolean {
  return isSameName(`${owner}/${name}`, `${repository.owner}/${repository.name}`)
}

/** By GitHub's structure, not its words: `errors: [{ field: "name" }]`. Without fields it may be about anything. */
function mayBeAboutName({ status, json }: ApiAnswer): boolean {
  if (status !== 422) return false
  const errors = isObject(json) && Array.isArray(json.errors) ? json.errors : []
  const fields = errors.flatMap((each) => (isObject(each) && each.field ? [each.field] : []))
  return fields.length === 0 || fields.includes('name')
}

/** 404 is how GitHub says "not for you" of a place that exists. */
function explainRefusal(answer: ApiAnswer, owner: string): GitHubError {
  if (answer.status !== 404) return explain(answer, answer.doing)
  const { 'x-accepted-oauth-scopes': accepted, 'x-oauth-scopes': has } = answer.headers
  if (accepted && has !== undefined) return explain({ ...answer, status: 403 }, answer.doing)
  return new GitHubError(
    'ORG_MISSING',
    `There is no organization ${owner} in which this credential may create repositories. Check its name, and that the credential's owner is a member who may create repositories (${answer.doing.grantAt}); then retry.`,
    { status: 404 },
  )
}
