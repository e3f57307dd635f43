import { useEffect, useRef, useState } from 'react'
import { wasSeenFromStart } from '../live/activity.ts'
import type { Moment } from './steps.ts'

/** A text that flashes by for two milliseconds has not been told to anybody. */
const tellingMs = 350

const toldUpTo = new Map<string, number>()

/**
 * The moment of a deployment to be shown. Of one that this page saw begin, each text is shown in order and long enough
 * to be read, which puts the last one off by at most a second; of any other, the latest.
 */
export function useNarration(id: string | null, moments: readonly Moment[]): Moment | undefined {
  const [told, setTold] = useState<{ id: string; sequence: number } | null>(null)
  const toldAtMs = useRef(0)
  const sequence = id !== null && told?.id === id ? told.sequence : firstToTell(id, moments)
  const shown = moments.find((moment) => moment.sequence === sequence) ?? moments.at(-1)
  const next = shown && nextToTell(moments, shown)
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

function firstToTell(id: string | null, moments: readonly Moment[]): number | undefined {
  if (id === null) return undefined
  return toldUpTo.get(id) ?? (wasSeenFromStart(id) ? moments[0] : moments.at(-1))?.sequence
}

/** The next one that says something else, or else the last one. */
function nextToTell(moments: readonly Moment[], shown: Moment): Moment | undefined {
  const following = moments.filter((moment) => moment.sequence > shown.sequence)
  return following.find((moment) => moment.text !== shown.text) ?? following.at(-1)
}
