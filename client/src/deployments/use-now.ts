import { useEffect, useState } from 'react'
import { serverNowMs } from '../live/server-clock.ts'

/** The server's time, renewed so often; it stands still when `everyMs` is null. */
export function useNowMs(everyMs: number | null): number {
  const [now, setNow] = useState(serverNowMs)
  useEffect(() => {
    setNow(serverNowMs())
    if (everyMs === null) return
    const timer = setInterval(() => setNow(serverNowMs()), everyMs)
    return () => clearInterval(timer)
  }, [everyMs])
  return now
}
