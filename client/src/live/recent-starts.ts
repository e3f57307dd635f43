import { makeVar } from '@apollo/client'

/** The deployment that started last while this page was open. */
export const latestStarted = makeVar<string | null>(null)

const recentStarts = new Set<string>()
const MAX_RECENT_STARTS = 500

export function recordStart(id: string): void {
  recentStarts.add(id)
  const [oldest] = recentStarts
  if (recentStarts.size > MAX_RECENT_STARTS && oldest) recentStarts.delete(oldest)
  latestStarted(id)
}

/** Whether this page has seen the deployment from its first event on. */
export function wasSeenFromStart(id: string): boolean {
  return recentStarts.has(id)
}
