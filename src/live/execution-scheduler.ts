/** What executions may take of one turn of the event loop. */
const SLICE_MS = 12

/** A group whose events wait for their execution. */
export interface DeferredDelivery {
  /** Those with the most go first. */
  readonly liveCount: number
  /** Delivers until the slice is over, and comes again with what is left. */
  deliverQueued(): void
}

/**
 * Keeps executions from stalling the event loop, however many there are. What fits into a slice is executed at once;
 * the rest goes on in the turns that follow, which are shared by
 *
 *   deliveries  events that have just happened: groups with the most live members first
 *   catch-ups   events that somebody has missed: subjects take turns
 */
export class ExecutionScheduler {
  private spentMs = 0
  private limitMs: number
  private isScheduled = false
  private readonly deliveries = new Set<DeferredDelivery>()
  private readonly catchUps = new Map<string, (() => void)[]>()

  constructor(private readonly sliceMs = SLICE_MS) {
    this.limitMs = sliceMs
  }

  get isSliceOver(): boolean {
    return this.spentMs >= this.limitMs
  }

  /** Executes now, and counts the time. */
  run<Result>(execution: () => Result): Result {
    const startedAt = performance.now()
    try {
      return execution()
    } finally {
      this.spentMs += performance.now() - startedAt
      this.schedule()
    }
  }

  scheduleDelivery(late: DeferredDelivery): void {
    this.deliveries.add(late)
    this.schedule()
  }

  /** It has nothing left to deliver. */
  cancelDelivery(late: DeferredDelivery): void {
    this.deliveries.delete(late)
  }

  scheduleCatchUp(subjectId: string, job: () => void): void {
    const jobs = this.catchUps.get(subjectId)
    if (jobs) jobs.push(job)
    else this.catchUps.set(subjectId, [job])
    this.schedule()
  }

  private schedule(): void {
    if (this.isScheduled) return
    this.isScheduled = true
    setImmediate(this.runSlice)
  }

  private readonly runSlice = (): void => {
    this.isScheduled = false
    this.spentMs = 0
    // Each has half of it, however long the other's last execution took: neither keeps the other waiting.
    const half = this.catchUps.size > 0 ? this.sliceMs / 2 : 0
    this.limitMs = this.sliceMs - half
    this.runDeliveries()
    this.limitMs = Math.max(this.sliceMs, this.spentMs + half)
    this.runNextCatchUp()
    if (this.deliveries.size + this.catchUps.size > 0) this.schedule()
  }

  private runDeliveries(): void {
    if (this.deliveries.size === 0) return
    const inOrder = [...this.deliveries].sort((one, other) => other.liveCount - one.liveCount)
    for (const late of inOrder) {
      if (this.isSliceOver) return
      this.deliveries.delete(late)
      late.deliverQueued()
    }
  }

  /** One a turn: whoever goes on with it may use what is left of the slice. */
  private runNextCatchUp(): void {
    const [next] = this.catchUps
    if (!next || this.isSliceOver) return
    const [subjectId, jobs] = next
    const job = jobs.shift()
    this.catchUps.delete(subjectId)
    // To the end of the line.
    if (jobs.length > 0) this.catchUps.set(subjectId, jobs)
    job?.()
  }
}
