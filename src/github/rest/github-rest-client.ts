import { ForgeError } from '../forge-error.ts'
import {
  type CallContext,
  type EnsureOrganizationInput,
  type EnsureRepositoryInput,
  GitHubClient,
  type Organization,
  type PushContentsInput,
  type PushResult,
  type Repository,
} from '../github-client.ts'
import { branchRef, requireValidLogin, requireValidRepo } from '../repository-names.ts'
import { gitUrl, isSameName } from './endpoints.ts'
import { type GitRemotes, type GitService, type Remote, RemoteNotFoundError } from './git-remote.ts'
import type { Advertisement, PushReport } from './git-wire.ts'
import { connectToGitHub, type GitHubConnection, type GitHubConnectionOptions } from './github-connection.ts'
import { type EnterpriseSettings, Organizations } from './organizations.ts'
import {
  hasCurrentName,
  hasOwnershipMarker,
  ownershipMarker,
  Repositories,
  type RepositoryFacts,
} from './repositories.ts'
import { DEFAULT_RETRY_SCHEDULE, pollUntilFound, type RetrySchedule } from './retry-schedule.ts'

export interface GitHubRestOptions extends GitHubConnectionOptions {
  enterprise?: EnterpriseSettings | undefined
  retrySchedule?: RetrySchedule
  /** Called for failures that stop nothing, or whose details exceed an error message. */
  log?(message: string, details?: Record<string, unknown>): void
}

/**
 * GitHub itself: github.com, Enterprise Cloud, Enterprise Server. REST for accounts and
 * repositories, git for contents.
 *
 * What a retry finds after a crash, by the point of the crash, and the code that relies on it:
 *   before the response to the create   a repository with our marker, or none    `Repositories.create`
 *   … and before its id is stored       the marker                               `isOurs`
 *   before the response to the push     the branch is absent, or at our commit   `GitRemotes.push` (compares)
 *   … and before that is stored         the branch is at our commit              `pushContents`
 */
export class GitHubRestClient extends GitHubClient {
  private readonly connection: GitHubConnection
  private readonly organizations: Organizations
  private readonly repositories: Repositories
  private readonly remotes: GitRemotes
  private readonly retrySchedule: RetrySchedule
  private readonly log: NonNullable<GitHubRestOptions['log']>

  constructor({
    enterprise,
    retrySchedule = DEFAULT_RETRY_SCHEDULE,
    log = () => {},
    ...options
  }: GitHubRestOptions) {
    super()
    this.connection = connectToGitHub(options)
    const { api, remotes } = this.connection
    this.organizations = new Organizations(api, enterprise, retrySchedule)
    this.repositories = new Repositories(api, retrySchedule)
    this.remotes = remotes
    this.retrySchedule = retrySchedule
    this.log = log
  }

  close(): Promise<void> {
    return this.connection.close()
  }

  async ensureOrganization(input: EnsureOrganizationInput, context: CallContext): Promise<Organization> {
    context.signal.throwIfAborted()
    const organization = await this.organizations.ensure(input, context)
    if (input.repository && organization.outcome === 'existed') {
      const repository = { ...input.repository, owner: organization.login }
      const existing = await this.repositories.find(repository, context.signal)
      if (existing !== null) await this.adopt(existing, repository, context.signal)
    }
    return organization
  }

  async ensureRepository(input: EnsureRepositoryInput, { signal }: CallContext): Promise<Repository> {
    signal.throwIfAborted()
    requireValidLogin(input.owner)
    requireValidRepo(input.name)
    branchRef(input.branch)
    const delaysMs = input.knownId === null ? [0] : this.retrySchedule.propagationDelaysMs
    const existing = await pollUntilFound(delaysMs, signal, () => this.repositories.find(input, signal))
    if (existing !== null) return this.adopt(existing, input, signal)
    if (input.knownId !== null) throw repositoryGoneError(input)

    const viewer = await this.organizations.viewer(input.owner, signal)
    const isOwnAccount = viewer !== null && isSameName(viewer.login, input.owner)
    const { isCreated, repository } = await this.repositories.create(input, isOwnAccount, signal)
    if (!isCreated) return this.adopt(repository, input, signal)
    checkVisibility(repository, input)
    return toRepository('created', repository)
  }

  async pushContents(input: PushContentsInput, context: CallContext): Promise<PushResult> {
    const { signal } = context
    signal.throwIfAborted()
    const ref = branchRef(input.branch)
    const { commit } = input.contents
    const repository = await pollUntilFound(this.retrySchedule.propagationDelaysMs, signal, () =>
      this.repositories.find(input, signal),
    )
    if (repository?.id !== input.repositoryId) throw repositoryGoneError(input)

    const remote = this.remoteOf(repository)
    const advertisement = await this.waitForAdvertisement(remote, signal)
    const head = advertisement.refs.get(ref) ?? null
    let outcome: PushResult['outcome'] = 'already-pushed'
    if (head !== commit) {
      if (head !== input.expectedHead) throw refMovedError(input, head)
      await this.push({ ...remote, url: advertisement.url }, ref, input, advertisement, context)
      outcome = 'pushed'
    }
    if (hasOwnershipMarker(repository)) await this.clearMarker(repository, signal)
    return { outcome, commit }
  }

  async branchHead(
    input: { owner: string; name: string; branch: string },
    { signal }: CallContext,
  ): Promise<string | null> {
    signal.throwIfAborted()
    const ref = branchRef(input.branch)
    // A recent push, by this process or by one that has died since, may not be visible everywhere yet.
    return pollUntilFound(this.retrySchedule.propagationDelaysMs, signal, async () => {
      const repository = await this.repositories.find(input, signal)
      if (repository === null) return null
      return this.readHead(this.remoteOf(repository), ref, 'git-upload-pack', signal)
    })
  }

  /** The existing repository if it belongs to this deployment; otherwise `REPO_TAKEN`. */
  private async adopt(
    existing: RepositoryFacts,
    input: EnsureRepositoryInput,
    signal: AbortSignal,
  ): Promise<Repository> {
    if (!(await this.isOurs(existing, input, signal))) throw repositoryTakenError(input, existing)
    checkVisibility(existing, input)
    return toRepository('existed', existing)
  }

  private async isOurs(
    existing: RepositoryFacts,
    input: EnsureRepositoryInput,
    signal: AbortSignal,
  ): Promise<boolean> {
    if (existing.id === input.knownId) return true
    if (!hasCurrentName(input, existing)) return false
    if (existing.homepage === ownershipMarker(input.intentId)) return true
    const ref = branchRef(input.branch)
    const head = await this.readHead(this.remoteOf(existing), ref, 'git-upload-pack', signal)
    return head === input.plannedCommit
  }

  /**
   * Pushes, then verifies the result unless it is certain: the report may be lost, or concern another push.
   */
  private async push(
    remote: Remote,
    ref: string,
    input: PushContentsInput,
    advertisement: Advertisement,
    context: CallContext,
  ): Promise<void> {
    const { signal } = context
    const { contents, expectedHead } = input
    const update = { ref, from: expectedHead, to: contents.commit }
    const readHead = () => this.readHead(remote, ref, 'git-receive-pack', signal)
    try {
      const report = await this.remotes.push(remote, update, contents, advertisement, context)
      if (report.unpack === 'ok' && report.ref === 'ok') return
      const head = await readHead()
      if (head === contents.commit) return
      throw head === expectedHead ? this.toPushError(report, remote) : refMovedError(input, head)
    } catch (error) {
      signal.throwIfAborted()
      const failure = error instanceof RemoteNotFoundError ? notYetVisibleError(remote) : error
      if (!(failure instanceof ForgeError) || failure.code !== 'TRANSIENT') throw failure
      const pushed = await pollUntilFound(this.retrySchedule.verifyDelaysMs, signal, async () =>
        (await readHead()) === contents.commit ? true : null,
      )
      if (pushed === null) throw failure
    }
  }

  private toPushError(report: PushReport, remote: Remote): ForgeError {
    const { error, text } = this.remotes.describeRejection(report, remote)
    this.log('GitHub declined a push', { repository: remote.fullName, text })
    return error
  }

  /** A new repository is visible in GitHub's API before git finds it. */
  private async waitForAdvertisement(
    remote: Remote,
    signal: AbortSignal,
  ): Promise<Advertisement & { url: string }> {
    const advertisement = await pollUntilFound(this.retrySchedule.propagationDelaysMs, signal, () =>
      this.findAdvertisement(remote, 'git-receive-pack', signal),
    )
    if (advertisement === null) throw notYetVisibleError(remote)
    return advertisement
  }

  /** Null if the repository or the ref does not exist. */
  private async readHead(
    remote: Remote,
    ref: string,
    service: GitService,
    signal: AbortSignal,
  ): Promise<string | null> {
    return (await this.findAdvertisement(remote, service, signal))?.refs.get(ref) ?? null
  }

  /** Null if git does not find the repository. */
  private async findAdvertisement(remote: Remote, service: GitService, signal: AbortSignal) {
    try {
      return await this.remotes.fetchAdvertisement(remote, service, signal)
    } catch (error) {
      if (error instanceof RemoteNotFoundError) return null
      throw error
    }
  }

  /** Does not fail the deployment, whose contents are pushed. */
  private async clearMarker(repository: RepositoryFacts, signal: AbortSignal): Promise<void> {
    let failure: ForgeError | undefined
    const isCleared = await pollUntilFound(this.retrySchedule.verifyDelaysMs, signal, async () => {
      try {
        await this.repositories.clearMarker(repository, signal)
        return true
      } catch (error) {
        signal.throwIfAborted()
        if (!(error instanceof ForgeError) || error.retryAt) throw error
        failure = error
        return error.code === 'TRANSIENT' ? null : false
      }
    })
    if (!isCleared) {
      this.log('Could not clear the homepage of a repository', {
        repository: repository.fullName,
        error: failure?.message,
      })
    }
  }

  private remoteOf(repository: RepositoryFacts): Remote {
    return {
      owner: repository.owner,
      fullName: repository.fullName,
      url: gitUrl(this.connection.endpoints, repository),
    }
  }
}

function toRepository(
  outcome: Repository['outcome'],
  { id, owner, name, url, cloneUrl }: RepositoryFacts,
): Repository {
  return { outcome, id, owner, name, url, cloneUrl }
}

/** Contents are never pushed to a repository with another visibility than requested. */
function checkVisibility(repository: RepositoryFacts, input: EnsureRepositoryInput): void {
  if (repository.visibility === input.visibility) return
  const requested = input.visibility.toLowerCase()
  throw new ForgeError(
    'VISIBILITY_CHANGED',
    `${repository.fullName} is ${repository.visibility.toLowerCase()} instead of ${requested}: a person or a policy of the organization changed it. Make it ${requested}, then retry.`,
  )
}

function repositoryTakenError(input: EnsureRepositoryInput, existing: RepositoryFacts): ForgeError {
  const fullName = `${input.owner}/${input.name}`
  if (hasCurrentName(input, existing)) {
    return new ForgeError(
      'REPO_TAKEN',
      `${fullName} already exists and does not belong to this deployment. Remove it and retry, or start a new deployment with another name.`,
    )
  }
  // GitHub would create it and drop the redirect. No setting allows that, so a retry cannot succeed.
  return new ForgeError(
    'REPO_TAKEN',
    `${fullName} is a former name of ${existing.fullName} and redirects to it. A new repository would break that redirect, so Shipcast does not create one. Start a new deployment with another name.`,
    { remedy: 'never' },
  )
}

function repositoryGoneError({ owner, name }: { owner: string; name: string }): ForgeError {
  return new ForgeError(
    'REPO_GONE',
    `${owner}/${name} was created by this deployment but no longer exists, or the credential cannot see it. Start a new deployment, or grant access and retry.`,
  )
}

/** A retry begins with a lookup by the API, which reveals whether the repository still exists. */
function notYetVisibleError({ fullName }: Remote): ForgeError {
  return new ForgeError(
    'TRANSIENT',
    `GitHub's API shows ${fullName}, but git does not find it yet. If this persists, check that the credential can push (Contents: write).`,
  )
}

function refMovedError({ owner, name, branch }: PushContentsInput, head: string | null): ForgeError {
  const state = head === null ? 'no longer exists' : `is at ${head}, where this deployment did not put it`
  return new ForgeError(
    'REF_MOVED',
    `The branch ${branch} of ${owner}/${name} ${state}, so it was not overwritten. Check the repository, then retry or start a new deployment.`,
  )
}
