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
import { branchRef } from '../local/forge-layout.ts'
import type { RepositoryFacts } from './accounts.ts'
import { checkLogin, checkRepositoryName, gitUrl, isSameName } from './endpoints.ts'
import { type GitRemotes, type Remote, RemoteNotFoundError } from './git-remote.ts'
import type { Advertisement, PushReport } from './git-wire.ts'
import { connectToGitHub, type GitHubConnection, type GitHubConnectionOptions } from './github-connection.ts'
import { type EnterpriseSettings, Organizations } from './organizations.ts'
import { hasCurrentName, hasOwnershipMarker, ownershipMarker, Repositories } from './repositories.ts'
import { DEFAULT_RETRY_SCHEDULE, pollUntilFound, type RetrySchedule } from './retry-schedule.ts'

export interface GitHubRestOptions extends GitHubConnectionOptions {
  enterprise?: EnterpriseSettings | undefined
  retrySchedule?: RetrySchedule
  /** Is told what goes wrong without stopping anything. */
  log?(message: string, details?: Record<string, unknown>): void
}

/**
 * GitHub itself: github.com, Enterprise Cloud, Enterprise Server. REST for accounts and repositories, git for contents.
 *
 * What is known after a crash, at any point of a deployment, and by what:
 *   before the create is answered   a repository with our mark, or none        `Repositories.create`
 *   … and before its id is stored   the mark
 *   before the push is answered     the branch is absent, or at our commit     `GitRemotes.push`, by compare-and-swap
 *   … and before that is stored     the branch is at our commit
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
    retrySchedule: patience = DEFAULT_RETRY_SCHEDULE,
    log = () => {},
    ...options
  }: GitHubRestOptions) {
    super()
    this.connection = connectToGitHub(options)
    const { api, remotes } = this.connection
    this.organizations = new Organizations(api, enterprise, patience)
    this.repositories = new Repositories(api, patience)
    this.remotes = remotes
    this.retrySchedule = patience
    this.log = log
  }

  /** Ends its connections. */
  close(): Promise<void> {
    return this.connection.close()
  }

  async ensureOrganization(input: EnsureOrganizationInput, context: CallContext): Promise<Organization> {
    context.signal.throwIfAborted()
    const organization = await this.organizations.ensure(input, context)
    if (input.repository && organization.outcome === 'existed') {
      const wanted = { ...input.repository, owner: organization.login }
      const existing = await this.repositories.find(wanted, context.signal)
      if (existing !== null) await this.adopt(existing, wanted, context.signal)
    }
    return organization
  }

  async ensureRepository(input: EnsureRepositoryInput, { signal }: CallContext): Promise<Repository> {
    signal.throwIfAborted()
    checkLogin(input.owner)
    checkRepositoryName(input.name)
    branchRef(input.branch)
    const looks = input.knownId === null ? [0] : this.retrySchedule.propagationDelaysMs
    const existing = await pollUntilFound(looks, signal, () => this.repositories.find(input, signal))
    if (existing !== null) return this.adopt(existing, input, signal)
    if (input.knownId !== null) throw repositoryGoneError(input)

    const viewer = await this.organizations.viewer(input.owner, signal)
    const isOwnAccount = viewer !== null && isSameName(viewer.login, input.owner)
    const creation = await this.repositories.create(input, isOwnAccount, signal)
    if (!creation.isCreated) return this.adopt(creation.repository, input, signal)
    checkVisibility(creation.repository, input)
    return this.toRepository('created', creation.repository)
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

    const remote = this.remote(repository)
    const advertised = await this.waitForAdvertisement(remote, signal)
    const head = advertised.refs.get(ref) ?? null
    let outcome: PushResult['outcome'] = 'already-pushed'
    if (head !== commit) {
      if (head !== input.expectedHead) throw refMovedError(input, head)
      await this.push({ ...remote, url: advertised.url }, ref, input, advertised, context)
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
    // What has just been pushed, by this process or by one that died since, may not be shown everywhere yet.
    return pollUntilFound(this.retrySchedule.propagationDelaysMs, signal, async () => {
      const repository = await this.repositories.find(input, signal)
      if (repository === null) return null
      return this.readHead(this.remote(repository), ref, 'git-upload-pack', signal)
    })
  }

  /** Pushes, and makes sure of what became of it: the report may be lost, or be about another's push. */
  private async push(
    remote: Remote,
    ref: string,
    input: PushContentsInput,
    advertised: Advertisement,
    context: CallContext,
  ): Promise<void> {
    const { signal } = context
    const { contents, expectedHead } = input
    const update = { ref, from: expectedHead, to: contents.commit }
    const headNow = () => this.readHead(remote, ref, 'git-receive-pack', signal)
    try {
      const report = await this.remotes.push(remote, update, contents, advertised, context)
      if (report.unpack === 'ok' && report.ref === 'ok') return
      const head = await headNow()
      if (head === contents.commit) return
      throw head === expectedHead ? this.toRefusalError(report, remote) : refMovedError(input, head)
    } catch (error) {
      signal.throwIfAborted()
      const failure = error instanceof RemoteNotFoundError ? notYetVisibleError(remote) : error
      if (!(failure instanceof ForgeError) || failure.code !== 'TRANSIENT') throw failure
      const arrived = await pollUntilFound(this.retrySchedule.verifyDelaysMs, signal, async () =>
        (await headNow()) === contents.commit ? true : null,
      )
      if (arrived === null) throw failure
    }
  }

  private toRefusalError(report: PushReport, remote: Remote): ForgeError {
    const { error, words } = this.remotes.describeRefusal(report, remote)
    this.log('GitHub declined a push', { repository: remote.fullName, words })
    return error
  }

  private async readHead(
    remote: Remote,
    ref: string,
    service: 'git-upload-pack' | 'git-receive-pack',
    signal: AbortSignal,
  ) {
    try {
      return (await this.remotes.fetchAdvertisement(remote, service, signal)).refs.get(ref) ?? null
    } catch (error) {
      if (error instanceof RemoteNotFoundError) return null
      throw error
    }
  }

  /** GitHub's API shows a new repository earlier than its git does. */
  private async waitForAdvertisement(
    remote: Remote,
    signal: AbortSignal,
  ): Promise<Advertisement & { url: string }> {
    const found = await pollUntilFound(this.retrySchedule.propagationDelaysMs, signal, async () => {
      try {
        return await this.remotes.fetchAdvertisement(remote, 'git-receive-pack', signal)
      } catch (error) {
        if (error instanceof RemoteNotFoundError) return null
        throw error
      }
    })
    if (found === null) throw notYetVisibleError(remote)
    return found
  }

  /** What is there is ours, or `REPO_TAKEN`. */
  private async adopt(
    existing: RepositoryFacts,
    input: EnsureRepositoryInput,
    signal: AbortSignal,
  ): Promise<Repository> {
    if (!(await this.isOurs(existing, input, signal))) throw repositoryTakenError(input, existing)
    checkVisibility(existing, input)
    return this.toRepository('existed', existing)
  }

  private async isOurs(
    existing: RepositoryFacts,
    input: EnsureRepositoryInput,
    signal: AbortSignal,
  ): Promise<boolean> {
    if (existing.id === input.knownId) return true
    if (!hasCurrentName(input, existing)) return false
    if (existing.homepage === ownershipMarker(input.intentId)) return true
    const head = await this.readHead(
      this.remote(existing),
      branchRef(input.branch),
      'git-upload-pack',
      signal,
    )
    return head === input.plannedCommit
  }

  private async clearMarker(repository: RepositoryFacts, signal: AbortSignal): Promise<void> {
    let failure: ForgeError | undefined
    // To do it twice does no harm.
    const isOff = await pollUntilFound(this.retrySchedule.verifyDelaysMs, signal, async () => {
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
    // The contents are there, which is what was asked for.
    if (!isOff) this.log(`The homepage of ${repository.fullName} could not be cleared: ${failure?.message}`)
  }

  private remote(repository: RepositoryFacts): Remote {
    return {
      owner: repository.owner,
      fullName: repository.fullName,
      url: gitUrl(this.connection.endpoints, repository),
    }
  }

  private toRepository(
    outcome: Repository['outcome'],
    { id, owner, name, url, cloneUrl }: RepositoryFacts,
  ): Repository {
    return { outcome, id, owner, name, url, cloneUrl }
  }
}

/** Whatever it is, contents meant for few are not shown to more. */
function checkVisibility(repository: RepositoryFacts, input: EnsureRepositoryInput): void {
  if (repository.visibility === input.visibility) return
  throw new ForgeError(
    'VISIBILITY_CHANGED',
    `${repository.fullName} is ${repository.visibility.toLowerCase()}, and was to be ${input.visibility.toLowerCase()}: somebody has changed it, or a policy of the organization does. Make it ${input.visibility.toLowerCase()}, then retry.`,
  )
}

function repositoryTakenError(input: EnsureRepositoryInput, existing: RepositoryFacts): ForgeError {
  const asked = `${input.owner}/${input.name}`
  if (hasCurrentName(input, existing)) {
    return new ForgeError(
      'REPO_TAKEN',
      `${asked} exists already and is not from this deployment. Remove it and retry, or start a new deployment with another name.`,
    )
  }
  // GitHub would allow it, and end the redirect. Nobody can tell us that this is what they want, so we never do.
  return new ForgeError(
    'REPO_TAKEN',
    `${asked} is a former name of ${existing.fullName}, and still leads there. A new repository would break these links, so Shipcast does not create one. Start a new deployment with another name.`,
    { remedy: 'never' },
  )
}

function repositoryGoneError({ owner, name }: { owner: string; name: string }): ForgeError {
  return new ForgeError(
    'REPO_GONE',
    `${owner}/${name} was created by this deployment and is not there any more, or the credential may not see it. Start a new deployment, or grant access and retry.`,
  )
}

/** The next try begins with a look by the API, which tells whether it is gone. */
function notYetVisibleError({ fullName }: Remote): ForgeError {
  return new ForgeError(
    'TRANSIENT',
    `GitHub shows ${fullName}, but not yet to git. If this stays so, check that the credential may push: Contents: write.`,
  )
}

function refMovedError({ owner, name, branch }: PushContentsInput, head: string | null): ForgeError {
  return new ForgeError(
    'REF_MOVED',
    `The branch ${branch} of ${owner}/${name} is ${head === null ? 'absent' : `at ${head}`}, which is not where this deployment left it. It is not overwritten. Look at the repository, then retry or start a new deployment.`,
  )
}
