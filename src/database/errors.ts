import { types } from 'node:util'
import pg from 'pg'
import { StartupError } from '../errors.ts'

/**
 * The database cannot be used now: no connection was possible, the connection broke, or the server is out of
 * resources or read-only. If a statement was running, its effect is unknown; a transaction that did not reach
 * its commit had none. A later retry can succeed. `cause` is the original error.
 */
export class DatabaseUnavailableError extends StartupError {
  override readonly name = 'DatabaseUnavailableError'
  readonly code = 'DATABASE_UNAVAILABLE'

  constructor(address: string, cause: unknown) {
    super(`The database (${address}) is not available: ${describeCause(cause)}`, { cause })
  }
}

/** Whether a statement failed because of its connection, which must not be used again. */
export function isConnectionFailure(error: unknown): boolean {
  if (error instanceof DatabaseUnavailableError) return true
  if (error instanceof pg.DatabaseError) {
    if (isCachedPlanStale(error) || isPreparedStatementLost(error)) return true
    return CONNECTION_ENDING_CODES.test(error.code ?? '')
  }
  if (!types.isNativeError(error)) return false
  return 'syscall' in error || DRIVER_CONNECTION_ERRORS.test(error.message)
}

/**
 * Whether the server works but could not run the statement this time: its disk is full or fails, its memory
 * or connections are exhausted, or conflicts persisted. The connection remains usable.
 */
export function isTemporaryFailure(error: unknown): boolean {
  return isConflict(error) || (error instanceof pg.DatabaseError && /^(53...|58030)$/.test(error.code ?? ''))
}

/**
 * Whether the server rolled the statement or transaction back because of a concurrent one:
 * serialization_failure, deadlock_detected, lock_not_available, or a migration. A retry can succeed.
 */
export function isConflict(error: unknown): boolean {
  const { cause = error } = error instanceof DatabaseUnavailableError ? error : {}
  if (!(cause instanceof pg.DatabaseError)) return false
  return isCachedPlanStale(cause) || /^(40001|40P01|55P03)$/.test(cause.code ?? '')
}

/** Another node has migrated a table that a prepared statement reads; a new connection prepares it again. */
function isCachedPlanStale({ routine }: pg.DatabaseError): boolean {
  return routine === 'RevalidateCachedQuery'
}

/** Whether a prepared statement existed before it was prepared, or did not exist afterwards. */
function isPreparedStatementLost(error: unknown): boolean {
  return error instanceof pg.DatabaseError && /^(42P05|26000)$/.test(error.code ?? '')
}

// PostgreSQL, appendix A: class 08; a primary that has become a standby (25006: its successor is elsewhere);
// shutdown and crash of the server; timeouts that end a session.
const CONNECTION_ENDING_CODES = /^(08...|25006|57P0[1-5]|25P0[34])$/

// Errors of pg without a code.
const DRIVER_CONNECTION_ERRORS =
  /^Connection terminated|^Query read timeout|not queryable|^Client was closed|^timeout expired/

function describeCause(cause: unknown): string {
  if (cause instanceof AggregateError) return cause.errors.map(describeCause).join('; ')
  const message = cause instanceof Error ? cause.message : String(cause)
  return isPreparedStatementLost(cause) ? `a pooler does not keep prepared statements (${message})` : message
}
