const clock = new Intl.DateTimeFormat(undefined, { timeStyle: 'medium' })
const calendar = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'short' })
const number = new Intl.NumberFormat()
const ago = new Intl.RelativeTimeFormat('en', { numeric: 'auto', style: 'short' })

export function clockTime(at: string | number): string {
  return clock.format(new Date(at))
}

export function dateAndTime(at: string): string {
  return calendar.format(new Date(at))
}

export function count(value: number): string {
  return number.format(value)
}

/** "1 file", "2 files". */
export function files(value: number): string {
  return `${count(value)} ${value === 1 ? 'file' : 'files'}`
}

export function size(bytes: number): string {
  if (bytes < 1000) return `${bytes} B`
  if (bytes < 1_000_000) return `${(bytes / 1000).toFixed(1)} kB`
  return `${(bytes / 1_000_000).toFixed(1)} MB`
}

/** "38 ms", "4.2 s", "3 min 05 s". */
export function duration(ms: number): string {
  if (ms < 1000) return `${Math.max(0, Math.round(ms))} ms`
  if (ms < 60_000) return `${(ms / 1000).toFixed(1)} s`
  const seconds = Math.round(ms / 1000)
  return `${Math.floor(seconds / 60)} min ${String(seconds % 60).padStart(2, '0')} s`
}

export function wholeSeconds(ms: number): string {
  const seconds = Math.max(0, Math.ceil(ms / 1000))
  return seconds < 60 ? `${seconds} s` : duration(seconds * 1000)
}

/** "just now", "5 min ago", "yesterday". */
export function timeAgo(at: string, nowMs: number): string {
  const seconds = (nowMs - Date.parse(at)) / 1000
  if (seconds < 45) return 'just now'
  if (seconds < 2700) return ago.format(-Math.max(1, Math.round(seconds / 60)), 'minute')
  if (seconds < 79_200) return ago.format(-Math.max(1, Math.round(seconds / 3600)), 'hour')
  return ago.format(-Math.max(1, Math.round(seconds / 86_400)), 'day')
}
