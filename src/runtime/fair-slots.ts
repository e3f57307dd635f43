interface Waiter {
  parties: readonly string[]
  virtualStart: number
  admit(): void
  reject(): void
}

/**
 * Lets `size` callers in at a time, while up to `maxWaiting` wait. Each caller belongs to parties, the most important
 * first (a subject, then an organization), and no party keeps another one out:
 *
 * - Turns are shared: a caller comes after the waiting callers of its own parties, not after those of others
 *   (start-time fair queueing, as `next_queue_rank` does for deployments).
 * - Places are shared: once all are taken, a newcomer takes the newest place of the party that waits most, if that has
 *   more than its own would (longest queue drop). Nobody loses a place while there is room.
 */
export class FairSlots {
  private readonly waiting: Waiter[] = []
  private inUse = 0
  /** Of the caller that was let in last. */
  private virtualTime = 0

  /** @param createError makes the error for callers that find no place, or lose it */
  constructor(
    private readonly size: number,
    private readonly maxWaiting: number,
    private readonly createError: () => Error,
  ) {}

  /**
   * Resolves to the function that gives the slot back, to be called once. Rejects with a refusal, or with the signal's
   * reason once that is aborted.
   */
  async acquire(parties: readonly string[], signal: AbortSignal): Promise<() => void> {
    signal.throwIfAborted()
    if (this.inUse < this.size) this.inUse++
    else await this.waitForSlot(parties, signal)
    return () => this.release()
  }

  private waitForSlot(parties: readonly string[], signal: AbortSignal): Promise<void> {
    if (this.waiting.length >= this.maxWaiting) this.makeRoom(parties)
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    const entry: Waiter = {
      parties,
      virtualStart: this.virtualStartOf(parties),
      admit: resolve,
      reject: () => reject(this.createError()),
    }
    const abort = () => {
      this.remove(entry)
      reject(signal.reason)
    }
    this.waiting.push(entry)
    signal.addEventListener('abort', abort, { once: true })
    return promise.finally(() => signal.removeEventListener('abort', abort))
  }

  private virtualStartOf(parties: readonly string[]): number {
    const own = this.waiting.filter((entry) => entry.parties.some((party) => parties.includes(party)))
    return Math.max(this.virtualTime, ...own.map(({ virtualStart: turn }) => turn)) + 1
  }

  private makeRoom(parties: readonly string[]): void {
    let highest = this.loadOf(parties).map((load) => load + 1)
    let victim: Waiter | undefined
    for (const entry of this.waiting) {
      const load = this.loadOf(entry.parties)
      const order = compare(load, highest)
      if (order > 0 || (order === 0 && victim)) {
        highest = load
        victim = entry
      }
    }
    if (!victim) throw this.createError()
    this.remove(victim)
    victim.reject()
  }

  /** How many wait of each of these parties. */
  private loadOf(parties: readonly string[]): number[] {
    return parties.map((party) => this.waiting.filter((entry) => entry.parties.includes(party)).length)
  }

  /** The slot passes on to the caller with the lowest turn, the first of several. */
  private release(): void {
    const [first, ...others] = this.waiting
    if (!first) {
      this.inUse--
      return
    }
    const next = others.reduce(
      (lowest, entry) => (entry.virtualStart < lowest.virtualStart ? entry : lowest),
      first,
    )
    this.remove(next)
    this.virtualTime = next.virtualStart
    next.admit()
  }

  private remove(entry: Waiter): void {
    const index = this.waiting.indexOf(entry)
    if (index >= 0) this.waiting.splice(index, 1)
  }
}

/** As numbers are compared: the first difference decides. */
function compare(one: readonly number[], other: readonly number[]): number {
  const index = one.findIndex((number, at) => number !== other[at])
  return index < 0 ? 0 : (one[index] ?? 0) - (other[index] ?? 0)
}
