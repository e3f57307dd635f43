import { CursorUnknown } from '../errors.ts'

/**
 * A place in the log, as clients keep it: four digits that name the log, twelve digits of position. All have the same
 * length, so they sort as text as they do as numbers. For clients a cursor is opaque.
 */
export function toCursor(logId: number, position: number): string {
  return `${logId}${String(position).padStart(12, '0')}`
}

/** @throws CursorUnknown unless the cursor is one of this log. */
export function positionOf(cursor: string, logId: number): number {
  if (!/^\d{16}$/.test(cursor) || Number(cursor.slice(0, 4)) !== logId) throw new CursorUnknown(cursor)
  return Number(cursor.slice(4))
}
