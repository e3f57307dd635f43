import type { ServerResponse } from 'node:http'

export interface MinimumReadRate {
  bytesPerSecond: number
  /** How far a reader may fall behind that, in seconds of it. */
  toleranceSeconds: number
}

const CHECK_INTERVAL_MS = 1_000

/**
 * Calls `close` when a client reads an answer too slowly. Only the time counts in which there is something
 * for it to read. To be called before anything is written; ends by itself when the response is closed.
 */
export function enforceMinimumReadRate(
  response: ServerResponse,
  rate: MinimumReadRate,
  close: () => void,
): void {
  let behindBytes = 0
  let writtenBefore = response.socket?.bytesWritten ?? 0
  const timer = setInterval(() => {
    const written = response.socket?.bytesWritten ?? writtenBefore
    const expected =
      response.writableNeedDrain || response.writableEnded
        ? (rate.bytesPerSecond * CHECK_INTERVAL_MS) / 1000
        : 0
    // A fast start is no credit: the system's own buffers take the first megabytes of any answer.
    behindBytes = Math.max(0, behindBytes + expected - (written - writtenBefore))
    writtenBefore = written
    if (behindBytes >= rate.bytesPerSecond * rate.toleranceSeconds) close()
  }, CHECK_INTERVAL_MS)
  response.once('close', () => clearInterval(timer))
}
