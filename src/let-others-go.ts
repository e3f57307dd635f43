import { setImmediate } from 'node:timers/promises'

const LARGE_BODY_BYTES = 256 * 1024

/**
 * Between two of the long synchronous parts of a large request (parsing it, weighing it, coercing its variables): lets
 * everybody else have a turn. A small one goes on at once.
 */
export async function letOthersGo(contentLength: string | undefined): Promise<void> {
  // Without a length it comes in chunks, as large ones do.
  if (contentLength === undefined || Number(contentLength) >= LARGE_BODY_BYTES) await setImmediate()
}
