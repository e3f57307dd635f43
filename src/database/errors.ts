import { types } from 'node:util'
import pg from 'pg'
import { StartupError } from '../errors.ts'

/**
 * No answer from the database: no connection could be had, or it broke; or it has no room, or is read-only, at the moment. When a statement was under way,
 * whether it took effect is unknown; a transaction whose commit was not reached did not. Trying again later
 * can help. `cause` is the original error.
 */
export class DatabaseUnavailableError extends StartupError {
  override readonly name = 'DatabaseUnavailableError'
  readonly code = 'DATABASE_UNAVAILABLE'

  constructor(address: string, cause: unknown) {
    super(`The database (${address}) is not available: ${describeCause(cause)}`, { cause })
  }
}

/**
 * Whether a statement failed because its connection did, and so leaves a connection that must not be used
 * again.
 */
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
 * Whether the server is there but cannot do it at the moment: its disk is full, its memory or connections are used up,
 * its disk fails, or others were in the way each time. The connection is as good as before.
 */
export function isTemporaryFailure(error: unknown): boolean {
  return isConflict(error) || (error instanceof pg.DatabaseError && /^(53...|58030)$/.test(error.code ?? ''))
}

/**
 * Whether the server has undone the statement or transaction because of others: serialization_failure,
 * deadlock_detected, lock_not_available, or a migration. The same again can succeed.
 */
export function isConflict(error: unknown): boolean {
  const { cause = error } = error instanceof DatabaseUnavailableError ? error : {}
  if (!(cause instanceof pg.DatabaseError)) return false
  return isCachedPlanStale(cause) || /^(40001|40P01|55P03)$/.test(cause.code ?? '')
}

/**
 * Another node has migrated a table that a statement prepared on this connection reads; a new connection prepares it
 * anew.
 */
function isCachedPlanStale({ routine }: pg.DatabaseError): boolean {
  return routine === 'RevalidateCachedQuery'
}

/** Whether a prepared statement was there before it was prepared, or is not there afterwards. */
function isPreparedStatementLost(error: unknown): boolean {
  return error instanceof pg.DatabaseError && /^(42P05|26000)$/.test(error.code ?? '')
}

// PostgreSQL, appendix A: class 08, a primary that has become a standby (25006; its successor is elsewhere), the server's shutdown and crash codes, and the timeouts that end a
// session.
const CONNECTION_ENDING_CODES = /^(08...|25006|57P0[1-5]|25P0[34])$/

// pg gives these no code.
const DRIVER_CONNECTION_ERRORS =
  /^Connection terminated|^Query read timeout|not queryable|^Client was closed|^timeout expired/

function describeCause(cause: unknown): string {
  if (cause instanceof AggregateError) return cause.errors.map(describeCause).join('; ')
  const message = cause instanceof Error ? cause.message : String(cause)
  return isPreparedStatementLost(cause) ? `a pooler does not keep prepared statements (${message})` : message
}
