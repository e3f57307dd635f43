/**
 * What can resolve an error:
 * - `backoff`: time may; the runner retries a limited number of times
 * - `pause`: time will, from `retryAt` on; without `retryAt`, rate limits repeat and a person must decide
 * - `person`: a person outside Shipcast (who frees a name or disk space, or grants a permission), then a retry
 * - `never`: nothing; only another deployment can succeed
 */
type Remedy = 'backoff' | 'pause' | 'person' | 'never'

export const REMEDIES = {
  /** The name belongs to a repository that this deployment did not create. */
  REPO_TAKEN: 'person',
  /** The branch is not at the commit that the push expects. */
  REF_MOVED: 'person',
  /** The repository that this deployment created no longer exists. */
  REPO_GONE: 'person',
  /** The repository is this deployment's, but its visibility is not the requested one. */
  VISIBILITY_CHANGED: 'person',
  /** The organization does not exist, and this forge does not let us create it. */
  ORG_MISSING: 'person',
  /** The credential is invalid or has expired. */
  UNAUTHENTICATED: 'person',
  /** The credential is valid but lacks a permission, which the message names. */
  FORBIDDEN: 'person',
  /** The forge declined the push: a hook, a rule, a missing scope. */
  PUSH_REJECTED: 'person',
  /** The forge refuses the request because of a plan or a policy. */
  INVALID: 'person',
  /** It does not exist, or the credential may not see it: GitHub does not say which. */
  NOT_FOUND: 'person',
  /** The forge reports an unspecified conflict. */
  CONFLICT: 'person',
  /** The resource was removed permanently, or for legal reasons. */
  GONE: 'person',
  /** The server's certificate is expired, for another name, or from an unknown authority. */
  UNTRUSTED: 'person',
  /** A response that Shipcast does not recognize. */
  UNEXPECTED: 'person',
  /** The local forge's folder is full, not writable or missing. */
  STORAGE: 'person',
  /** The forge asks for fewer requests. */
  RATE_LIMITED: 'pause',
  /** A temporary failure: busy, disconnected, timed out. */
  TRANSIENT: 'backoff',
  /** A name that no organization, repository or branch of this forge can have. */
  INVALID_NAME: 'never',
  /** A file or the push is larger than the forge allows. */
  TOO_LARGE: 'never',
} as const satisfies Record<string, Remedy>

export type ForgeErrorCode = keyof typeof REMEDIES

interface ForgeErrorOptions extends ErrorOptions {
  /** `RATE_LIMITED`: when to retry, by this process's clock. Absent: not automatically. */
  retryAt?: Date
  /** The HTTP status of the response. */
  status?: number
  /** GitHub's `x-github-request-id`, for its support; appears in the log with the error. */
  requestId?: string
  /** Overrides the code's own remedy. */
  remedy?: Remedy
}

/** An error of the forge, with a message that says what to do. */
export class ForgeError extends Error {
  override readonly name = 'ForgeError'
  readonly code: ForgeErrorCode
  readonly remedy: Remedy
  readonly retryAt: Date | undefined
  readonly status: number | undefined
  readonly requestId: string | undefined

  // No parameter properties: Node also loads this file by stripping its types.
  constructor(code: ForgeErrorCode, message: string, options: ForgeErrorOptions = {}) {
    super(message, options)
    this.code = code
    this.remedy = options.remedy ?? REMEDIES[code]
    this.retryAt = options.retryAt
    this.status = options.status
    this.requestId = options.requestId
  }
}
