/**
 * Who can mend it:
 * - `backoff`: time may; the runner tries again by itself, with a cap
 * - `person`: somebody has to act outside (free a name, grant a permission, empty a disk), then "retry" goes on
 * - `never`: only another deployment can succeed
 */
export type Remedy = 'backoff' | 'person' | 'never'

const REMEDIES = {
  /** The repository name is in use by somebody else's repository. */
  REPO_TAKEN: 'person',
  /** The branch is not where it must be for the push. */
  REF_MOVED: 'person',
  /** The repository that was created earlier is gone. */
  REPO_GONE: 'person',
  /** No space, no permission or no such folder where the local forge keeps its repositories. */
  STORAGE: 'person',
  /** A failure that may pass: busy, cut off, timed out. */
  TRANSIENT: 'backoff',
  /** A name of an organization, repository or branch that this forge cannot have. */
  INVALID_NAME: 'never',
} as const satisfies Record<string, Remedy>

export type GitHubErrorCode = keyof typeof REMEDIES

/** What went wrong on the forge, with a sentence that tells a person what to do. */
export class GitHubError extends Error {
  override readonly name = 'GitHubError'
  readonly code: GitHubErrorCode
  readonly remedy: Remedy

  // No parameter property: this file is also loaded by plain Node, which only strips types.
  constructor(code: GitHubErrorCode, message: string, options?: ErrorOptions) {
    super(message, options)
    this.code = code
    this.remedy = REMEDIES[code]
  }
}
