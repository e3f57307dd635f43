/** How much of one turn of the event loop executions can use. */
const SLICE_MS = 12

/** A shared subscription with events that wait for their execution. */
export interface DeferredDelivery {
  /** Those with the most live subscribers go first. */
  readonly liveCount: number
  /** Delivers until the slice is over, then schedules itself again for what is left. */
  deliverQueued(): void
}

/**
 * Keeps executions from blocking the event loop, however many there are. What fits into a slice is executed
 * at once; the rest continues in the following turns, which are shared by
 *
 *   deliveries  events that have just happened: those with the most live subscribers first
 *   catch-ups   events that a subscriber has missed: round-robin over subjects
 */
export class ExecutionScheduler {
  private spentMs = 0
  /** How far the current slice can exceed `sliceMs`; negative while half of it is reserved for catch-ups. */
  private allowanceMs = 0
  private isScheduled = false
  private readonly deliveries = new Set<DeferredDelivery>()
  private readonly catchUps = new Map<string, (() => void)[]>()

  constructor(private readonly options: { sliceMs: number } = { sliceMs: SLICE_MS }) {}

  get isSliceOver(): boolean {
    return this.spentMs >= this.options.sliceMs + this.allowanceMs
  }

  /** Executes now, and counts the time that it takes. */
  run<Result>(execution: () => Result): Result {
    const startedAt = performance.now()
    try {
      return execution()
    } finally {
      this.spentMs += performance.now() - startedAt
      this.schedule()
    }
  }

  scheduleDelivery(delivery: DeferredDelivery): void {
    this.deliveries.add(delivery)
    this.schedule()
  }

  cancelDelivery(delivery: DeferredDelivery): void {
    this.deliveries.delete(delivery)
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
    const { sliceMs } = this.options
    this.isScheduled = false
    this.spentMs = 0
    // Each kind has half of the slice, however long the other's last execution took: neither starves the
    // other.
    const halfMs = this.catchUps.size > 0 ? sliceMs / 2 : 0
    this.allowanceMs = -halfMs
    this.runDeliveries()
    this.allowanceMs = Math.max(0, this.spentMs + halfMs - sliceMs)
    this.runNextCatchUp()
    if (this.deliveries.size + this.catchUps.size > 0) this.schedule()
  }

  private runDeliveries(): void {
    if (this.deliveries.size === 0) return
    const inOrder = [...this.deliveries].sort((one, other) => other.liveCount - one.liveCount)
    for (const delivery of inOrder) {
      if (this.isSliceOver) return
      this.deliveries.delete(delivery)
      delivery.deliverQueued()
    }
  }

  /** One per turn: the subscriber that continues with it can use the rest of the slice. */
  private runNextCatchUp(): void {
    const [next] = this.catchUps
    if (!next || this.isSliceOver) return
    const [subjectId, jobs] = next
    const job = jobs.shift()
    this.catchUps.delete(subjectId)
    // To the end of the queue.
    if (jobs.length > 0) this.catchUps.set(subjectId, jobs)
    job?.()
  }
}
