import { useEffect, useRef, useState } from 'react'
import { wasSeenFromStart } from '../../live/recent-starts.ts'
import type { StatusChange } from '../steps.ts'
import { firstToDisplay, nextToDisplay, remainingTextMs } from './status-pacing.ts'

/** By deployment, so that switching between deployments does not replay them. */
const displayedSequences = new Map<string, number>()
const MAX_DISPLAYED = 500

/**
 * The status change to display. If the page has seen the deployment start, each text is displayed in order
 * and long enough to be read, which delays the last one by about a second at most.
 */
export function usePacedStatus(
  id: string | null,
  changes: readonly StatusChange[],
): StatusChange | undefined {
  const [paced, setPaced] = useState<{ id: string; sequence: number } | null>(null)
  const textDisplayedAtMs = useRef(0)
  const sequence = id !== null && paced?.id === id ? paced.sequence : initialSequence(id, changes)
  const displayed = changes.find((change) => change.sequence === sequence) ?? changes.at(-1)
  const next = displayed && nextToDisplay(changes, displayed)
  const displayedSequence = displayed?.sequence
  const nextSequence = next?.sequence
  const text = displayed?.text

  useEffect(() => {
    if (id === null || displayedSequence === undefined) return
    rememberDisplayed(id, displayedSequence)
    setPaced({ id, sequence: displayedSequence })
  }, [id, displayedSequence])

  // biome-ignore lint/correctness/useExhaustiveDependencies: the time of each text starts when it appears.
  useEffect(() => {
    textDisplayedAtMs.current = performance.now()
  }, [id, text])

  // biome-ignore lint/correctness/useExhaustiveDependencies: sequences identify the two status changes.
  useEffect(() => {
    if (id === null || !displayed || !next) return
    const waitMs = remainingTextMs(displayed, next, performance.now() - textDisplayedAtMs.current)
    const timer = setTimeout(() => setPaced({ id, sequence: next.sequence }), waitMs)
    return () => clearTimeout(timer)
  }, [id, displayedSequence, nextSequence])

  return displayed
}

function initialSequence(id: string | null, changes: readonly StatusChange[]): number | undefined {
  if (id === null) return undefined
  return displayedSequences.get(id) ?? firstToDisplay(changes, wasSeenFromStart(id))?.sequence
}

function rememberDisplayed(id: string, sequence: number) {
  displayedSequences.set(id, sequence)
  const [oldest] = displayedSequences.keys()
  if (displayedSequences.size > MAX_DISPLAYED && oldest) displayedSequences.delete(oldest)
}
