/** How long requests may occupy one turn of the event loop; later ones wait for another turn. */
const SLICE_MS = 10

/**
 * Shares the event loop fairly between subjects. Once a turn of the loop has used up its slice, further requests wait for
 * a later turn: requests that arrive together stall the loop for one slice and the longest request, rather than for the
 * sum of all. Subjects take turns in the queue.
 *
 *   await requestScheduler.waitForTurn(subject.id)
 *   // the code up to the next await of I/O runs in one piece
 */
export class FairScheduler {
  /** Waiting callbacks by subject; the first subject is next. */
  private readonly queues = new Map<string, (() => void)[]>()
  private sliceStartedAt = 0
  private isScheduled = false
  /** A request was admitted and has not finished its synchronous part. */
  private isRunning = false
  /** A request ran immediately in this turn. */
  private hasRunImmediately = false

  constructor(private readonly sliceMs = SLICE_MS) {}

  /** Whether short work may run immediately: the queue is empty, and the slice is not used up. */
  get canRunNow(): boolean {
    this.schedule()
    const isFree = this.queues.size === 0 && !this.isRunning && !this.isSliceOver
    this.hasRunImmediately ||= isFree
    return isFree
  }

  /** Resolves immediately, or when it is the subject's turn. */
  async waitForTurn(subjectId: string): Promise<void> {
    if (this.canRunNow) this.startRunning()
    else await new Promise<void>((resolve) => this.enqueue(subjectId, resolve))
  }

  /** For use between two long parts of a request: waits if the slice is used up. */
  async yieldIfBusy(subjectId: string): Promise<void> {
    this.schedule()
    if (this.isSliceOver) await new Promise<void>((resolve) => this.enqueue(subjectId, resolve))
  }

  /** Calls back when it is the subject's turn, never immediately. */
  enqueue(subjectId: string, callback: () => void): void {
    const queue = this.queues.get(subjectId)
    if (queue) queue.push(callback)
    else this.queues.set(subjectId, [callback])
    this.schedule()
  }

  private get isSliceOver(): boolean {
    return performance.now() - this.sliceStartedAt >= this.sliceMs
  }

  private schedule(): void {
    if (this.isScheduled) return
    this.isScheduled = true
    this.sliceStartedAt = performance.now()
    setImmediate(this.startSlice)
  }

  private readonly startSlice = (): void => {
    this.isScheduled = false
    const isOver = this.hasRunImmediately && this.isSliceOver
    this.hasRunImmediately = false
    if (this.queues.size === 0) return
    this.schedule()
    // The queue owns the next turn: no request runs immediately in it.
    if (!isOver) this.runNext()
  }

  private startRunning(): void {
    this.isRunning = true
    // The next tick comes after pending promises, so after the synchronous part of the request.
    queueMicrotask(() => process.nextTick(this.finishRunning))
  }

  private readonly finishRunning = (): void => {
    this.isRunning = false
    this.runNext()
  }

  private runNext(): void {
    const [next] = this.queues
    if (!next || this.isRunning || this.isSliceOver) return
    const [subjectId, queue] = next
    const callback = queue.shift()
    this.queues.delete(subjectId)
    // Moves the subject to the end of the queue.
    if (queue.length > 0) this.queues.set(subjectId, queue)
    this.startRunning()
    callback?.()
  }
}

/** One for the process, which has one event loop. */
export const requestScheduler = new FairScheduler()
