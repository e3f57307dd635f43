import { GraphQLError } from 'graphql'

/** The codes that a client may act on, in `extensions.code`, over HTTP and over the socket alike. */
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

/** One thing wrong with an input: where (`input.contents.files[3].path`) and why, as the end of "<path> …". */
export interface FieldError {
  path: string
  reason: string
}

/** An error that a client may see: what it says and carries is for outside. All others reach it as `internalError`. */
export class ShipcastError extends GraphQLError {
  override readonly name: string = 'ShipcastError'
  readonly code: ErrorCode

  constructor(code: ErrorCode, message: string, details: Readonly<Record<string, unknown>> = {}) {
    super(message, { extensions: { ...details, code } })
    this.code = code
  }
}

/** Stops the start for a reason that a person can fix: its message is shown without a stack. */
export class StartupError extends Error {
  override readonly name: string = 'StartupError'
}

/** So many faults are listed; the message says how many more there are. */
const MAX_LISTED_ERRORS = 100
/** So many are in the message itself, which is for people. */
const MAX_NAMED_ERRORS = 3

/** `extensions.fields` lists the faults in the order given, at most 100; `extensions.faultCount` counts them all. */
export class BadUserInputError extends ShipcastError {
  override readonly name = 'BadUserInputError'

  constructor(faults: readonly FieldError[]) {
    const fields = faults.slice(0, MAX_LISTED_ERRORS)
    super('BAD_USER_INPUT', summarize(faults), { fields, faultCount: faults.length })
  }
}

/** Nobody knows who asks. `extensions.signIn` lists where a person can sign in: `{name, url}`. */
export class UnauthenticatedError extends ShipcastError {
  override readonly name = 'UnauthenticatedError'

  constructor(message: string, details: { signIn?: readonly { name: string; url: string }[] } = {}) {
    super('UNAUTHENTICATED', message, details)
  }
}

/** It is known who asks, and what is asked for may be seen, but not done. */
export class ForbiddenError extends ShipcastError {
  override readonly name = 'ForbiddenError'

  constructor(message: string) {
    super('FORBIDDEN', message)
  }
}

export class NotFoundError extends ShipcastError {
  override readonly name = 'NotFoundError'

  /** `what` as in "Deployment 4f1c". */
  constructor(what: string) {
    super('NOT_FOUND', `${escapeInvisible(what)} does not exist, or you may not see it. Check the id.`)
  }
}

/** With `deploymentId`: the deployment that stands in the way, to be followed, cancelled or waited for. */
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
      `The cursor ${quote(cursor)} is not one of ours or no longer kept. ` +
        'Ask again without "after" for the present state, then go on from the cursors that you get.',
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

  /** As the header Retry-After has it (RFC 9110, 10.2.3); null: nobody knows. */
  readonly retryAfterSeconds: number | null

  constructor(message: string, retryAfterMs: number | null = null) {
    const seconds = retryAfterMs === null ? null : Math.ceil(retryAfterMs / 1000)
    const next = seconds === null ? 'Try again later.' : `Try again in ${seconds} s.`
    super('RATE_LIMITED', `${message} ${next}`, { retryAfterMs })
    this.retryAfterSeconds = seconds
  }
}

/** What a client is told of an error that is not for outside; the log has the rest under the same id. */
export function internalError(id: string): ShipcastError {
  const message = `Something went wrong on our side. Try again; if it happens again, report the id ${id}, under which it is logged.`
  return new ShipcastError('INTERNAL', message, { id })
}

/**
 * Quotes a text from outside, for a message or the audit log: on one line and shortened, with what does not show, or
 * changes how the rest of the line shows, as `\uXXXX`.
 */
export function quote(text: string): string {
  const shown = text.length > 80 ? `${text.slice(0, 79)}…` : text
  return escapeInvisible(JSON.stringify(shown.toWellFormed()))
}

/**
 * Control, bidirectional, zero-width, private and unassigned characters, fillers, and those that end a line; not the
 * mark that makes a picture of the character before it.
 */
function escapeInvisible(text: string): string {
  return text.replace(/[[\p{C}\p{DI}\p{Zl}\p{Zp}]--\ufe0f]/gv, (character) =>
    character
      .split('')
      .map((unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`)
      .join(''),
  )
}

function summarize(faults: readonly FieldError[]): string {
  const named = faults.slice(0, MAX_NAMED_ERRORS).map(({ path, reason }) => `${path} ${reason}`)
  const more = faults.length - named.length
  const rest = more > 0 ? `; and ${more} more` : ''
  return `The input has ${faults.length === 1 ? 'a fault' : `${faults.length} faults`}: ${named.join('; ')}${rest}.`
}
