import { GraphQLError } from 'graphql'

/** The codes in `extensions.code` that a client can act on, the same over HTTP and over the socket. */
export const ERROR_CODES = [
  'BAD_USER_INPUT',
  'UNAUTHENTICATED',
  'FORBIDDEN',
  'NOT_FOUND',
  'CONFLICT',
  'CURSOR_UNKNOWN',
  'TOO_LARGE',
  'RATE_LIMITED',
  'INTERNAL',
] as const
export type ErrorCode = (typeof ERROR_CODES)[number]

/** One error in an input. `reason` completes "<path> …"; a path is `input.contents.files[3].path`. */
export interface FieldError {
  path: string
  reason: string
}

/** An error whose message and details a client may see. All others reach clients as `internalError`. */
export class ShipcastError extends GraphQLError {
  override readonly name: string = 'ShipcastError'
  readonly code: ErrorCode

  constructor(code: ErrorCode, message: string, details: Readonly<Record<string, unknown>> = {}) {
    super(message, { extensions: { ...details, code } })
    this.code = code
  }
}

/** Stops the start for a reason that a person can fix: the message is printed without a stack. */
export class StartupError extends Error {
  override readonly name: string = 'StartupError'
}

/** Errors listed in `extensions.fields`; the message gives the number of the others. */
const MAX_LISTED_ERRORS = 100
/** Errors repeated in the message. */
const MAX_NAMED_ERRORS = 3

/** `extensions.fields` lists the errors in order, at most 100; `extensions.faultCount` counts all of them. */
export class BadUserInputError extends ShipcastError {
  override readonly name = 'BadUserInputError'

  constructor(errors: readonly FieldError[]) {
    const fields = errors.slice(0, MAX_LISTED_ERRORS)
    super('BAD_USER_INPUT', summarize(errors), { fields, faultCount: errors.length })
  }
}

/** The request is not authenticated. `extensions.signIn` lists where a person can sign in: `{name, url}`. */
export class UnauthenticatedError extends ShipcastError {
  override readonly name = 'UnauthenticatedError'

  constructor(message: string, details: { signIn?: readonly { name: string; url: string }[] } = {}) {
    super('UNAUTHENTICATED', message, details)
  }
}

/** The subject can see the object, but not perform the operation. */
export class ForbiddenError extends ShipcastError {
  override readonly name = 'ForbiddenError'

  constructor(message: string) {
    super('FORBIDDEN', message)
  }
}

export class NotFoundError extends ShipcastError {
  override readonly name = 'NotFoundError'

  /** `name` as in "Deployment 4f1c". */
  constructor(name: string) {
    super(
      'NOT_FOUND',
      `${escapeInvisible(name)} does not exist, or you do not have access to it. Check the id.`,
    )
  }
}

/** `deploymentId` is the conflicting deployment, which the client can follow, cancel or wait for. */
export class ConflictError extends ShipcastError {
  override readonly name = 'ConflictError'

  constructor(message: string, details: { deploymentId?: string } = {}) {
    super('CONFLICT', message, details)
  }
}

export class UnknownCursorError extends ShipcastError {
  override readonly name = 'UnknownCursorError'

  constructor(cursor: string) {
    super(
      'CURSOR_UNKNOWN',
      `Unknown or expired cursor ${quote(cursor)}. Subscribe without "after" to get the current state, ` +
        'then resume from the cursors you receive.',
    )
  }
}

export class TooLargeError extends ShipcastError {
  override readonly name = 'TooLargeError'

  constructor(message: string, fields: readonly FieldError[] = []) {
    super('TOO_LARGE', message, { fields })
  }
}

export class RateLimitedError extends ShipcastError {
  override readonly name = 'RateLimitedError'

  /** For the header Retry-After (RFC 9110, 10.2.3); null: unknown. */
  readonly retryAfterSeconds: number | null

  constructor(message: string, retryAfterMs: number | null = null) {
    const seconds = retryAfterMs === null ? null : Math.ceil(retryAfterMs / 1000)
    const next = seconds === null ? 'Try again later.' : `Try again in ${seconds} s.`
    super('RATE_LIMITED', `${message} ${next}`, { retryAfterMs })
    this.retryAfterSeconds = seconds
  }
}

/** Hides the details of an error from the client; the log has them under the same id. */
export function internalError(id: string): ShipcastError {
  const message = `Internal error. Try again; if it happens again, report the id ${id}, under which it is logged.`
  return new ShipcastError('INTERNAL', message, { id })
}

/**
 * Quotes untrusted text for a message or the audit log: shortened, on one line. Characters that are
 * invisible, or that change how the rest of the line is displayed, become `\uXXXX`.
 */
export function quote(text: string): string {
  const shortened = text.length > 80 ? `${text.slice(0, 79)}…` : text
  return escapeInvisible(JSON.stringify(shortened.toWellFormed()))
}

/**
 * Escapes control, bidirectional, zero-width, private and unassigned characters, fillers and line separators,
 * but not the emoji variation selector.
 */
function escapeInvisible(text: string): string {
  return text.replace(/[[\p{C}\p{DI}\p{Zl}\p{Zp}]--\ufe0f]/gv, (character) =>
    character
      .split('')
      .map((unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`)
      .join(''),
  )
}

function summarize(errors: readonly FieldError[]): string {
  const named = errors.slice(0, MAX_NAMED_ERRORS).map(({ path, reason }) => `${path} ${reason}`)
  const more = errors.length - named.length
  const rest = more > 0 ? `; and ${more} more` : ''
  return `The input has ${errors.length === 1 ? 'an error' : `${errors.length} errors`}: ${named.join('; ')}${rest}.`
}
