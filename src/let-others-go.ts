import { setImmediate } from 'node:timers/promises'

const LARGE_BODY_BYTES = 256 * 1024

let last: Promise<unknown> = Promise.resolve()

/**
 * Between two of the long synchronous parts of a large request (parsing it, coercing its variables): lets everybody else
 * have a turn. Large requests that came at the same time go one in each turn of the event loop. A small one goes on at
 * once.
 */
export async function letOthersGo(contentLength: string | undefined): Promise<void> {
  // Without a length it comes in chunks, as large ones do.
  if (contentLength !== undefined && Number(contentLength) < LARGE_BODY_BYTES) return
  last = last.then(() => setImmediate())
  await last
}
