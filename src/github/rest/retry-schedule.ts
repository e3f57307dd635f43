import { setTimeout as sleep } from 'node:timers/promises'

/** How long what should be there is waited for: pauses in milliseconds, one before each look. */
export interface RetrySchedule {
  /** After an answer was lost: whether it was done all the same. */
  verifyDelaysMs: readonly number[]
  /** After our own create: until GitHub shows it everywhere, half a minute in all. */
  propagationDelaysMs: readonly number[]
}

export const DEFAULT_RETRY_SCHEDULE: RetrySchedule = {
  verifyDelaysMs: [0, 1_000, 2_000, 4_000, 8_000],
  propagationDelaysMs: [0, 1_000, 2_000, 4_000, 8_000, 15_000],
}

/** Looks until there is something, at most as often as there are pauses; null when there was nothing at the last look. */
export async function pollUntilFound<T>(
  pausesMs: readonly number[],
  signal: AbortSignal,
  look: () => Promise<T | null>,
): Promise<T | null> {
  for (const ms of pausesMs) {
    // Aborted, it is the signal's own reason that is wanted.
    if (ms > 0) await sleep(ms, undefined, { signal }).catch(() => signal.throwIfAborted())
    const found = await look()
    if (found !== null) return found
  }
  return null
}
