import { makeVar } from '@apollo/client'

/** The deployment that began last, as far as this page saw it begin. */
export const latestStarted = makeVar<string | null>(null)

const startedHere = new Set<string>()
const mostStarts = 500

/** Notes that a deployment began before the eyes of this page. */
export function recordStart(id: string): void {
  startedHere.add(id)
  const [oldest] = startedHere
  if (startedHere.size > mostStarts && oldest) startedHere.delete(oldest)
  latestStarted(id)
}

/** True when this page saw the deployment from its first event on, and may tell it from there. */
export function wasSeenFromStart(id: string): boolean {
  return startedHere.has(id)
}
