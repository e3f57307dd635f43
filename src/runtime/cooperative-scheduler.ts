import { setImmediate } from 'node:timers/promises'

const SLICE_MS = 8

/** One queue for all schedulers: together, all large requests block the loop no longer than one does. */
let yieldQueue: Promise<void> = Promise.resolve()

/**
 * Divides long work into short slices: `if (scheduler.shouldYield) await scheduler.yieldToEventLoop()`. The
 * first slice starts at once, so short work never waits.
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

  /** Resolves in a later event-loop iteration; rejects with the signal's reason if it is aborted. */
  async yieldToEventLoop(): Promise<void> {
    // One slice per iteration: each immediate schedules the next one, which runs in the next iteration.
    yieldQueue = yieldQueue.then(() => setImmediate())
    await yieldQueue
    this.signal.throwIfAborted()
    this.sliceEndsAtMs = performance.now() + SLICE_MS
  }
}
