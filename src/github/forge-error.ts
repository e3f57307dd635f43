/**
 * Who can mend it:
 * - `backoff`: time may; the runner tries again by itself, with a cap
 * - `pause`: time will; the forge has said when (`retryAt`). Without `retryAt` it has said so too often: a person decides
 * - `person`: somebody has to act outside (free a name, grant a permission, empty a disk), then "retry" goes on
 * - `never`: only another deployment can succeed
 */
export type Remedy = 'backoff' | 'pause' | 'person' | 'never'

export const REMEDIES = {
  /** The repository name is in use by somebody else's repository. */
  REPO_TAKEN: 'person',
  /** The branch is not where it must be for the push. */
  REF_MOVED: 'person',
  /** The repository that was created earlier is gone. */
  REPO_GONE: 'person',
  /** The repository is this deployment's, but others may see it than were meant to. */
  VISIBILITY_CHANGED: 'person',
  /** There is no such organization, and this forge does not let us create one. */
  ORG_MISSING: 'person',
  /** The credential is not, or no longer, valid. */
  UNAUTHENTICATED: 'person',
  /** The credential is valid and lacks a permission, which the message names. */
  FORBIDDEN: 'person',
  /** The forge declined the push: a hook, a rule, a missing scope. `reason` says which. */
  PUSH_REJECTED: 'person',
  /** The forge refuses what was asked for: a plan, a policy. */
  INVALID: 'person',
  /** It is not there, or the credential may not see it: GitHub does not tell which. */
  NOT_FOUND: 'person',
  /** The forge says that something is in the way, and not what. */
  CONFLICT: 'person',
  /** What was asked for has been taken away for good, or for legal reasons. */
  GONE: 'person',
  /** Who answers cannot prove to be the forge: its certificate is from an unknown authority, expired, or for another name. */
  UNTRUSTED: 'person',
  /** An answer that nobody has thought of. */
  UNEXPECTED: 'person',
  /** No space, no permission or no such folder where the local forge keeps its repositories. */
  STORAGE: 'person',
  /** The forge wants fewer requests. */
  RATE_LIMITED: 'pause',
  /** A failure that may pass: busy, cut off, timed out. */
  TRANSIENT: 'backoff',
  /** A name of an organization, repository or branch that this forge cannot have. */
  INVALID_NAME: 'never',
  /** A file or the whole is larger than the forge takes. */
  TOO_LARGE: 'never',
} as const satisfies Record<string, Remedy>

export type ForgeErrorCode = keyof typeof REMEDIES

/** What the forge's own words about a declined push come down to. */
export type PushRejection =
  | 'workflow-scope'
  | 'rule-violation'
  | 'secret'
  | 'email-privacy'
  | 'lfs-objects-missing'
  | 'bad-objects'
  | 'declined'

export interface ForgeErrorOptions extends ErrorOptions {
  /** `RATE_LIMITED`: when to come back, on this process's clock. Absent: not by itself. */
  retryAt?: Date
  /** The HTTP status that it was told by. */
  status?: number
  /** GitHub's `x-github-request-id`, which its support asks for. */
  requestId?: string
  reason?: PushRejection
  /** Where it is not the one that the code stands for. */
  remedy?: Remedy
}

/** What went wrong on the forge, with a sentence that tells a person what to do. */
export class ForgeError extends Error {
  override readonly name = 'ForgeError'
  readonly code: ForgeErrorCode
  readonly remedy: Remedy
  readonly retryAt: Date | undefined
  readonly status: number | undefined
  readonly requestId: string | undefined
  readonly reason: PushRejection | undefined

  // No parameter property: this file is also loaded by plain Node, which only strips types.
  constructor(code: ForgeErrorCode, message: string, options: ForgeErrorOptions = {}) {
    super(message, options)
    this.code = code
    this.remedy = options.remedy ?? REMEDIES[code]
    this.retryAt = options.retryAt
    this.status = options.status
    this.requestId = options.requestId
    this.reason = options.reason
  }
}
