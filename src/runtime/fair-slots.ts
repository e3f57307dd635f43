interface Waiter {
  parties: readonly string[]
  virtualStart: number
  admit(): void
  reject(): void
}

/**
 * Admits `size` callers at a time, while up to `maxWaiting` wait. Each caller belongs to parties, the most
 * important first (a subject, then an organization), and no party can block another one:
 *
 * - Order is fair: a caller waits for earlier callers of its own parties, not for those of others (start-time
 *   fair queueing, as in `next_queue_rank` for deployments).
 * - Room is fair: when the queue is full, a new caller replaces the newest one of the party with the most
 *   waiting callers, if its own party would still have fewer (longest queue drop).
 */
export class FairSlots {
  private readonly waiting: Waiter[] = []
  private inUse = 0
  /** The virtual start of the caller admitted last. */
  private virtualTime = 0

  /** @param createError creates the error for callers that find the queue full, or are replaced */
  constructor(
    private readonly size: number,
    private readonly maxWaiting: number,
    private readonly createError: () => Error,
  ) {}

  /**
   * Resolves to a function that releases the slot and must be called once. Rejects with the created error, or
   * with the signal's reason when it is aborted.
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
    const waiter: Waiter = {
      parties,
      virtualStart: this.virtualStartOf(parties),
      admit: resolve,
      reject: () => reject(this.createError()),
    }
    const abort = () => {
      this.remove(waiter)
      reject(signal.reason)
    }
    this.waiting.push(waiter)
    signal.addEventListener('abort', abort, { once: true })
    return promise.finally(() => signal.removeEventListener('abort', abort))
  }

  private virtualStartOf(parties: readonly string[]): number {
    const own = this.waiting.filter((waiter) => waiter.parties.some((party) => parties.includes(party)))
    return Math.max(this.virtualTime, ...own.map(({ virtualStart }) => virtualStart)) + 1
  }

  private makeRoom(parties: readonly string[]): void {
    let highest = this.loadOf(parties).map((load) => load + 1)
    let victim: Waiter | undefined
    for (const waiter of this.waiting) {
      const load = this.loadOf(waiter.parties)
      const order = compare(load, highest)
      if (order > 0 || (order === 0 && victim)) {
        highest = load
        victim = waiter
      }
    }
    if (!victim) throw this.createError()
    this.remove(victim)
    victim.reject()
  }

  /** The number of waiting callers of each party. */
  private loadOf(parties: readonly string[]): number[] {
    return parties.map((party) => this.waiting.filter((waiter) => waiter.parties.includes(party)).length)
  }

  /** Passes the slot to the caller with the lowest virtual start, the first of several. */
  private release(): void {
    const [first, ...others] = this.waiting
    if (!first) {
      this.inUse--
      return
    }
    const next = others.reduce(
      (lowest, waiter) => (waiter.virtualStart < lowest.virtualStart ? waiter : lowest),
      first,
    )
    this.remove(next)
    this.virtualTime = next.virtualStart
    next.admit()
  }

  private remove(waiter: Waiter): void {
    const index = this.waiting.indexOf(waiter)
    if (index >= 0) this.waiting.splice(index, 1)
  }
}

/** Compares lexicographically. */
function compare(one: readonly number[], other: readonly number[]): number {
  const index = one.findIndex((number, at) => number !== other[at])
  return index < 0 ? 0 : (one[index] ?? 0) - (other[index] ?? 0)
}
