import type { ServerResponse } from 'node:http'

export interface MinimumReadRate {
  bytesPerSecond: number
  /** How far a reader can fall behind, in seconds at that rate. */
  toleranceSeconds: number
}

const CHECK_INTERVAL_MS = 1_000

/**
 * Calls `close` when a client reads a response too slowly. Only the time in which data is available counts.
 * Must be called before anything is written; stops when the response is closed.
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
    // A fast start earns no credit: the system's buffers accept the first megabytes of any response.
    behindBytes = Math.max(0, behindBytes + expected - (written - writtenBefore))
    writtenBefore = written
    if (behindBytes >= rate.bytesPerSecond * rate.toleranceSeconds) close()
  }, CHECK_INTERVAL_MS)
  response.once('close', () => clearInterval(timer))
}
