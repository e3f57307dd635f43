import type { StatusChange } from '../steps.ts'

/** A text that appears for only a few milliseconds cannot be read. */
const MIN_TEXT_MS = 350

/**
 * For a deployment seen from its start, each status change is displayed in turn; for any other, the latest.
 */
export function firstToDisplay(
  changes: readonly StatusChange[],
  isSeenFromStart: boolean,
): StatusChange | undefined {
  return isSeenFromStart ? changes[0] : changes.at(-1)
}

/** The next status change with another text, or else the latest. */
export function nextToDisplay(
  changes: readonly StatusChange[],
  displayed: StatusChange,
): StatusChange | undefined {
  const later = changes.filter((change) => change.sequence > displayed.sequence)
  return later.find((change) => change.text !== displayed.text) ?? later.at(-1)
}

/** How much longer a text stays before `next` replaces it. */
export function remainingTextMs(displayed: StatusChange, next: StatusChange, displayedForMs: number): number {
  return displayed.text === next.text ? 0 : Math.max(0, MIN_TEXT_MS - displayedForMs)
}
