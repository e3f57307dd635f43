import type { PreparedContents } from './git/commit-pack.ts'

/** How to abort a call, and where to report its progress. */
export interface CallContext {
  /**
   * Aborted when the deployment is cancelled, the lease is lost or the process stops; the
   * call then rejects promptly.
   */
  signal: AbortSignal
  /** Called while contents are sent; `unit` is for display ("bytes"). */
  onProgress?(progress: { done: number; total: number; unit: string }): void
}

export type Visibility = 'PUBLIC' | 'PRIVATE'

export interface EnsureOrganizationInput {
  login: string
  /**
   * The repository to create next. A forge that can rejects at once if `ensureRepository` would reject it.
   */
  repository?: Omit<EnsureRepositoryInput, 'owner'>
}

export interface Organization {
  outcome: 'existed' | 'created'
  /** The forge's id, which does not change when the organization is renamed. */
  id: string
  /** As the forge spells it, which may differ in case from the requested login. */
  login: string
}

export interface EnsureRepositoryInput {
  owner: string
  name: string
  visibility: Visibility
  description: string | null
  /**
   * Identifies the deployment. A repository created with the same intent id belongs to it,
   * whatever happened since.
   */
  intentId: string
  /** The id that an earlier call returned, if the result was stored. */
  knownId: string | null
  /**
   * A repository whose branch is at this commit belongs to it, too: only this deployment
   * could create the commit.
   */
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
  /** From `ensureRepository`: the push goes to this repository, not to another of the same name. */
  repositoryId: string
  branch: string
  /**
   * The branch must be at this commit (null: must not exist), else `REF_MOVED`; nothing is ever overwritten.
   */
  expectedHead: string | null
  contents: PreparedContents
}

export interface PushResult {
  outcome: 'pushed' | 'already-pushed'
  commit: string
}

/**
 * Creates repositories on a forge. An abstract class, so that it can be its own injection token.
 *
 * Every call may be repeated after a crash at any point, with the same result. Calls reject with
 * `ForgeError`, or with the signal's reason once it is aborted. They never delete anything and never force a
 * branch; the runner retries steps.
 */
export abstract class GitHubClient {
  /** Finds the organization, or creates it if the forge can. */
  abstract ensureOrganization(input: EnsureOrganizationInput, context: CallContext): Promise<Organization>

  /**
   * Creates an empty repository, or finds the one that this deployment created; else
   * rejects with `REPO_TAKEN`.
   */
  abstract ensureRepository(input: EnsureRepositoryInput, context: CallContext): Promise<Repository>

  /** Pushes the prepared commit to the branch, by compare-and-swap. */
  abstract pushContents(input: PushContentsInput, context: CallContext): Promise<PushResult>

  /** The commit that a branch is at; null when the branch or the repository does not exist. */
  abstract branchHead(
    input: { owner: string; name: string; branch: string },
    context: CallContext,
  ): Promise<string | null>
}
