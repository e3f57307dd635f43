/** What requests may take of one turn of the event loop before the next ones wait for another turn. */
const SLICE_MS = 10

/**
 * Shares the event loop between those who send requests: whoever comes when much has been done in this turn waits for a
 * later one, so that any number of requests that arrive together stall the loop for a slice and the longest of them, and
 * not for their sum. Subjects take turns in the line.
 *
 *   await turns.enter(subject.id)
 *   // what follows, up to the next wait for something outside, is done in one go
 */
export class FairScheduler {
  /** Those who wait, by subject; the first subject is next. */
  private readonly queues = new Map<string, (() => void)[]>()
  private sliceStartedAt = 0
  private isScheduled = false
  /** Somebody has been let in, and has not done yet what follows. */
  private isRunning = false
  /** Somebody has gone on at once in this turn. */
  private hasRunImmediately = false

  constructor(private readonly sliceMs = SLICE_MS) {}

  /** Whether something short may be done at once: nobody waits, and little has been done in this turn. */
  get canRunNow(): boolean {
    this.schedule()
    const isFree = this.queues.size === 0 && !this.isRunning && !this.isSliceOver
    this.hasRunImmediately ||= isFree
    return isFree
  }

  /** Resolves at once, or when it is the subject's turn. */
  async waitForTurn(subjectId: string): Promise<void> {
    if (this.canRunNow) this.startRunning()
    else await new Promise<void>((resolve) => this.enqueue(subjectId, resolve))
  }

  /** Between two long parts of a request: the same when much has been done in this turn. */
  async yieldIfBusy(subjectId: string): Promise<void> {
    this.schedule()
    if (this.isSliceOver) await new Promise<void>((resolve) => this.enqueue(subjectId, resolve))
  }

  /** Calls back when it is the subject's turn, which is not at once. */
  enqueue(subjectId: string, go: () => void): void {
    const line = this.queues.get(subjectId)
    if (line) line.push(go)
    else this.queues.set(subjectId, [go])
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
    // Those in line have the next turn: nobody goes on at once in it.
    if (!isOver) this.runNext()
  }

  private startRunning(): void {
    this.isRunning = true
    // Promises come before the next tick: by then all that follows has been done.
    queueMicrotask(() => process.nextTick(this.finishRunning))
  }

  private readonly finishRunning = (): void => {
    this.isRunning = false
    this.runNext()
  }

  private runNext(): void {
    const [next] = this.queues
    if (!next || this.isRunning || this.isSliceOver) return
    const [subjectId, line] = next
    const go = line.shift()
    this.queues.delete(subjectId)
    // To the end of the line.
    if (line.length > 0) this.queues.set(subjectId, line)
    this.startRunning()
    go?.()
  }
}

/** Of this process, which has one event loop. */
export const requestScheduler = new FairScheduler()
