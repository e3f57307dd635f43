import { setTimeout as sleep } from 'node:timers/promises'

/** How often and how long to poll for something that should exist: milliseconds before each attempt. */
export interface RetrySchedule {
  /** After a lost response: was the request applied anyway? */
  verifyDelaysMs: readonly number[]
  /** After our own create: until all of GitHub shows it, half a minute in total. */
  propagationDelaysMs: readonly number[]
}

export const DEFAULT_RETRY_SCHEDULE: RetrySchedule = {
  verifyDelaysMs: [0, 1_000, 2_000, 4_000, 8_000],
  propagationDelaysMs: [0, 1_000, 2_000, 4_000, 8_000, 15_000],
}

/** Polls once after each delay until `find` returns something; null if the last attempt found nothing. */
export async function pollUntilFound<T>(
  delaysMs: readonly number[],
  signal: AbortSignal,
  find: () => Promise<T | null>,
): Promise<T | null> {
  for (const delayMs of delaysMs) {
    // An abort rejects with the signal's own reason, not with the timer's AbortError.
    if (delayMs > 0) await sleep(delayMs, undefined, { signal }).catch(() => signal.throwIfAborted())
    const found = await find()
    if (found !== null) return found
  }
  return null
}
