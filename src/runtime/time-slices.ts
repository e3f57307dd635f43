import { setImmediate } from 'node:timers/promises'

const SLICE_MS = 8

/** Those who wait for their next slice, one behind the other, so that any number of large requests stalls the loop no more than one. */
let line: Promise<void> = Promise.resolve()

/**
 * Long work in short slices: `if (slices.isOver) await slices.next()`. The first slice starts at once, so that short
 * work never waits.
 */
export class TimeSlices {
  readonly #signal: AbortSignal
  #endsAtMs = performance.now() + SLICE_MS

  constructor(signal: AbortSignal) {
    signal.throwIfAborted()
    this.#signal = signal
  }

  get isOver(): boolean {
    return performance.now() >= this.#endsAtMs
  }

  /** Lets the event loop turn; rejects with the signal's reason once that is aborted. */
  async next(): Promise<void> {
    // One slice a turn of the loop: a promise resolved in an immediate chains the next immediate, which waits for the next turn.
    line = line.then(() => setImmediate())
    await line
    this.#signal.throwIfAborted()
    this.#endsAtMs = performance.now() + SLICE_MS
  }
}
