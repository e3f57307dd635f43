// Not Intl's unit style, which in English is "12 byte" and "4.2 sec".

const time = new Intl.DateTimeFormat(undefined, { timeStyle: 'medium' })
const dateAndTime = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'short' })
const number = new Intl.NumberFormat()
const relativeTime = new Intl.RelativeTimeFormat('en', { numeric: 'auto', style: 'short' })
const list = new Intl.ListFormat('en', { type: 'conjunction' })

export function formatTime(at: string | number): string {
  return time.format(new Date(at))
}

export function formatDateTime(at: string): string {
  return dateAndTime.format(new Date(at))
}

export function formatNumber(value: number): string {
  return number.format(value)
}

/** "1 file", "2 files". */
export function formatFileCount(count: number): string {
  return `${formatNumber(count)} ${count === 1 ? 'file' : 'files'}`
}

/** "12 B", "1.5 kB", "31.5 MB". */
export function formatBytes(bytes: number): string {
  if (bytes < 1000) return `${bytes} B`
  // Where one decimal would round up to 1000.0, the larger unit follows.
  if (bytes < 999_950) return `${(bytes / 1000).toFixed(1)} kB`
  return `${(bytes / 1_000_000).toFixed(1)} MB`
}

/** "38 ms", "4.2 s", "3 min 05 s". */
export function formatDuration(durationMs: number): string {
  if (durationMs < 999.5) return `${Math.max(0, Math.round(durationMs))} ms`
  if (durationMs < 59_950) return `${(durationMs / 1000).toFixed(1)} s`
  const seconds = Math.round(durationMs / 1000)
  return `${Math.floor(seconds / 60)} min ${String(seconds % 60).padStart(2, '0')} s`
}

/** In whole seconds, rounded up: "5 s", "1 min 05 s". */
export function formatCountdown(remainingMs: number): string {
  const seconds = Math.max(0, Math.ceil(remainingMs / 1000))
  return seconds < 60 ? `${seconds} s` : formatDuration(seconds * 1000)
}

/** "just now", "5 min. ago", "yesterday". */
export function formatRelativeTime(at: string, nowMs: number): string {
  const seconds = (nowMs - Date.parse(at)) / 1000
  if (seconds < 45) return 'just now'
  if (seconds < 2700) return relativeTime.format(-Math.max(1, Math.round(seconds / 60)), 'minute')
  if (seconds < 79_200) return relativeTime.format(-Math.max(1, Math.round(seconds / 3600)), 'hour')
  return relativeTime.format(-Math.max(1, Math.round(seconds / 86_400)), 'day')
}

/** "acme, globex, and labs". */
export function formatList(items: readonly string[]): string {
  return list.format(items)
}
