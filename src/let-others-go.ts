import { setImmediate } from 'node:timers/promises'

const LARGE_BODY_BYTES = 256 * 1024

let last: Promise<unknown> = Promise.resolve()

/**
 * Yields to the event loop between two long synchronous parts of a large request (parsing it, coercing its variables).
 * Of several large requests one goes on in each turn of the event loop. A small one goes on at once.
 */
export async function letOthersGo(contentLength: string | undefined): Promise<void> {
  // Without a length it comes in chunks, as large ones do.
  if (contentLength !== undefined && Number(contentLength) < LARGE_BODY_BYTES) return
  last = last.then(() => setImmediate())
  await last
}
