let offsetMs = 0
let smallestDelayMs = Number.POSITIVE_INFINITY

/**
 * Learns how the server's clock differs from ours. An event takes some time to come, or much when it is a replay, so
 * the smallest difference seen is the best estimate.
 */
export function learnServerTime(at: string): void {
  const delayMs = Date.now() - Date.parse(at)
  if (delayMs >= smallestDelayMs) return
  smallestDelayMs = delayMs
  offsetMs = delayMs
}

/** Now, by the clock that the times of events come from. */
export function serverNowMs(): number {
  return Date.now() - offsetMs
}
