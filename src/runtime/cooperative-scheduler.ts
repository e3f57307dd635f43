import { setImmediate } from 'node:timers/promises'

const SLICE_MS = 8

/** Those who wait for their next slice, one behind the other, so that any number of large requests stalls the loop no more than one. */
let yieldQueue: Promise<void> = Promise.resolve()

/**
 * Long work in short slices: `if (slices.isOver) await slices.next()`. The first slice starts at once, so that short
 * work never waits.
 */
export class CooperativeScheduler {
  private readonly signal: AbortSignal
  private sliceEndsAtMs = performance.now() + SLICE_MS

  constructor(signal: AbortSignal) {
    signal.throwIfAborted()
    this.signal = signal
  }

  get shouldYield(): boolean {
    return performance.now() >= this.sliceEndsAtMs
  }

  /** Lets the event loop turn; rejects with the signal's reason once that is aborted. */
  async yieldToEventLoop(): Promise<void> {
    // One slice a turn of the loop: a promise resolved in an immediate chains the next immediate, which waits for the next turn.
    yieldQueue = yieldQueue.then(() => setImmediate())
    await yieldQueue
    this.signal.throwIfAborted()
    this.sliceEndsAtMs = performance.now() + SLICE_MS
  }
}
