/** How much of one event-loop iteration requests can use. */
const SLICE_MS = 10

/**
 * Shares the event loop between requests. A request that arrives late in an iteration waits for a later one:
 * requests that arrive together block the loop for a slice plus the longest of them, not for their sum.
 * Subjects take turns.
 *
 *   await requestScheduler.waitForTurn(subject.id)
 *   // the code up to the next wait for I/O runs without interruption
 */
export class FairScheduler {
  /** Waiting callers by subject; the first subject is next. */
  private readonly queues = new Map<string, (() => void)[]>()
  private sliceStartedAt = 0
  private isScheduled = false
  /** An admitted caller is still running. */
  private isRunning = false
  /** A caller ran without waiting in this iteration. */
  private hasRunImmediately = false

  constructor(private readonly sliceMs = SLICE_MS) {}

  /** Whether short work can run at once: no caller is waiting, and the slice is not over. */
  get canRunNow(): boolean {
    this.schedule()
    const isFree = this.queues.size === 0 && !this.isRunning && !this.isSliceOver
    this.hasRunImmediately ||= isFree
    return isFree
  }

  /** Resolves at once if possible, else when it is the subject's turn. */
  async waitForTurn(subjectId: string): Promise<void> {
    if (this.canRunNow) this.startRunning()
    else await new Promise<void>((resolve) => this.enqueue(subjectId, resolve))
  }

  /** Between two long parts of a request: waits for the subject's turn if the slice is over. */
  async yieldIfBusy(subjectId: string): Promise<void> {
    this.schedule()
    if (this.isSliceOver) await new Promise<void>((resolve) => this.enqueue(subjectId, resolve))
  }

  /** Calls back, never synchronously, when it is the subject's turn. */
  enqueue(subjectId: string, admit: () => void): void {
    const queue = this.queues.get(subjectId)
    if (queue) queue.push(admit)
    else this.queues.set(subjectId, [admit])
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
    // The next iteration belongs to the queue.
    if (!isOver) this.runNext()
  }

  private startRunning(): void {
    this.isRunning = true
    // The caller's promise continuations run before the next tick.
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
    const admit = queue.shift()
    this.queues.delete(subjectId)
    // Moves the subject to the end.
    if (queue.length > 0) this.queues.set(subjectId, queue)
    this.startRunning()
    admit?.()
  }
}

/** One for the process, since it has one event loop. */
export const requestScheduler = new FairScheduler()
