import { useEffect, useState } from 'react'

let offsetMs = 0
let minDelayMs = Number.POSITIVE_INFINITY

/**
 * Learns the offset of the server's clock from the time of an event. Events arrive late, replayed ones very
 * late, so the smallest difference seen is the best estimate.
 */
export function learnServerTime(at: string): void {
  const delayMs = Date.now() - Date.parse(at)
  if (delayMs >= minDelayMs) return
  minDelayMs = delayMs
  offsetMs = delayMs
}

/** The current time by the server's clock, which also stamps the events. */
function serverNowMs(): number {
  return Date.now() - offsetMs
}

/** The server's time, updated at this interval; null stops updates. */
export function useServerNowMs(intervalMs: number | null): number {
  const [nowMs, setNowMs] = useState(serverNowMs)
  useEffect(() => {
    setNowMs(serverNowMs())
    if (intervalMs === null) return
    const timer = setInterval(() => setNowMs(serverNowMs()), intervalMs)
    return () => clearInterval(timer)
  }, [intervalMs])
  return nowMs
}
