import { useEffect, useRef, useState } from 'react'
import { wasSeenFromStart } from '../../live/recent-starts.ts'
import type { StatusChange } from '../steps.ts'

/** A text that flashes by for two milliseconds has not been told to anybody. */
const tellingMs = 350

const toldUpTo = new Map<string, number>()

/**
 * The moment of a deployment to be shown. Of one that this page saw begin, each text is shown in order and long enough
 * to be read, which puts the last one off by at most a second; of any other, the latest.
 */
export function usePacedStatus(
  id: string | null,
  changes: readonly StatusChange[],
): StatusChange | undefined {
  const [told, setTold] = useState<{ id: string; sequence: number } | null>(null)
  const toldAtMs = useRef(0)
  const sequence = id !== null && told?.id === id ? told.sequence : firstToTell(id, changes)
  const shown = changes.find((moment) => moment.sequence === sequence) ?? changes.at(-1)
  const next = shown && nextToTell(changes, shown)
  const shownSequence = shown?.sequence
  const text = shown?.text

  useEffect(() => {
    if (id === null || shownSequence === undefined) return
    toldUpTo.set(id, shownSequence)
    setTold({ id, sequence: shownSequence })
  }, [id, shownSequence])

  // biome-ignore lint/correctness/useExhaustiveDependencies: the time of a text begins when it is first on the page.
  useEffect(() => {
    toldAtMs.current = performance.now()
  }, [id, text])

  const nextSequence = next?.sequence
  const isSameText = next?.text === text
  useEffect(() => {
    if (id === null || nextSequence === undefined) return
    const remainingMs = isSameText ? 0 : toldAtMs.current + tellingMs - performance.now()
    const timer = setTimeout(() => setTold({ id, sequence: nextSequence }), Math.max(0, remainingMs))
    return () => clearTimeout(timer)
  }, [id, nextSequence, isSameText])

  return shown
}

function firstToTell(id: string | null, changes: readonly StatusChange[]): number | undefined {
  if (id === null) return undefined
  return toldUpTo.get(id) ?? (wasSeenFromStart(id) ? changes[0] : changes.at(-1))?.sequence
}

/** The next one that says something else, or else the last one. */
function nextToTell(changes: readonly StatusChange[], shown: StatusChange): StatusChange | undefined {
  const following = changes.filter((moment) => moment.sequence > shown.sequence)
  return following.find((moment) => moment.text !== shown.text) ?? following.at(-1)
}
