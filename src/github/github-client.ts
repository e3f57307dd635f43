import type { PreparedContents } from './git/commit-pack.ts'

/** What every call to a forge takes: when to give up, and where to tell how far it is. */
export interface CallContext {
  /** Aborted when the deployment is cancelled, the lease is lost or the process stops. The call then rejects soon. */
  signal: AbortSignal
  /** Called while contents are sent; `unit` is for people ("bytes", "objects"). */
  onProgress?(progress: { done: number; total: number; unit: string }): void
}

export type Visibility = 'PUBLIC' | 'PRIVATE'

export interface EnsureOrganizationInput {
  login: string
  /** What is to be created there. A forge that can tells at once what would stand in its way, as that call would. */
  repository?: Omit<EnsureRepositoryInput, 'owner'>
}

export interface Organization {
  outcome: 'existed' | 'created'
  /** The forge's own id: stays when the organization is renamed. */
  id: string
  /** As the forge spells it, which may differ in case from what was asked for. */
  login: string
}

export interface EnsureRepositoryInput {
  owner: string
  name: string
  visibility: Visibility
  description: string | null
  /** Names who wants it. A repository that was created for the same intent is ours, whatever happened in between. */
  intentId: string
  /** The id that an earlier call returned, if its result was stored. */
  knownId: string | null
  /** A repository whose branch already is at this commit is ours too: only this deployment could have made it. */
  branch: string
  plannedCommit: string
}

export interface Repository {
  outcome: 'existed' | 'created'
  id: string
  owner: string
  name: string
  /** For people. */
  url: string
  /** For `git clone`. */
  cloneUrl: string
}

export interface PushContentsInput {
  owner: string
  name: string
  /** From `ensureRepository`: the push goes to this very repository, not to a namesake. */
  repositoryId: string
  branch: string
  /** The branch must be at this commit; null: it must not exist. Anything else is `REF_MOVED`, never overwritten. */
  expectedHead: string | null
  contents: PreparedContents
}

export interface PushResult {
  outcome: 'pushed' | 'already-pushed'
  commit: string
}

/**
 * Puts repositories on a forge. An abstract class, so that it is its own injection token.
 *
 * Every call may be repeated after a crash at any point and ends in the same state. Calls reject with `GitHubError`,
 * or with the signal's reason once it is aborted. They never delete, never force a branch, and do not retry by
 * themselves: the runner decides about that.
 */
export abstract class GitHubClient {
  /** Names where repositories go, for people and logs. */
  abstract readonly kind: 'local' | 'github'

  /** Finds the organization, or creates it where the forge can. */
  abstract ensureOrganization(input: EnsureOrganizationInput, context: CallContext): Promise<Organization>

  /** Creates the empty repository, or finds the one that this same intent created before; else `REPO_TAKEN`. */
  abstract ensureRepository(input: EnsureRepositoryInput, context: CallContext): Promise<Repository>

  /** Puts the prepared commit on the branch, by compare-and-swap. */
  abstract pushContents(input: PushContentsInput, context: CallContext): Promise<PushResult>

  /** The commit that a branch is at, or null where the branch (or the repository) is absent. */
  abstract branchHead(
    input: { owner: string; name: string; branch: string },
    context: CallContext,
  ): Promise<string | null>
}
