interface PerKeyLimits {
  /** Slots that one key can hold at a time. */
  maxSlots: number
  /** Callers of one key that can wait. */
  maxWaiting: number
}

interface KeyQueue {
  inUse: number
  waiting: Set<() => void>
}

/**
 * Admits `size` callers at a time; up to `maxWaiting` more wait, first come, first served. Callers can have
 * keys: each key has its own queue and its own limits, and the keys take turns.
 */
export class BoundedSlots {
  private readonly size: number
  private readonly maxWaiting: number
  private readonly perKey: PerKeyLimits
  /** In the order of their turns. Contains the keys that have a slot or wait for one. */
  private readonly queues = new Map<string, KeyQueue>()
  private inUse = 0
  private waiting = 0

  constructor(size: number, maxWaiting: number, perKey: PerKeyLimits = { maxSlots: size, maxWaiting }) {
    this.size = size
    this.maxWaiting = maxWaiting
    this.perKey = perKey
  }

  /**
   * Resolves to a function that releases the slot and must be called once, or immediately to null if the
   * queue is full. Rejects with the signal's reason if the signal is aborted first.
   */
  async acquire(signal: AbortSignal, key = ''): Promise<(() => void) | null> {
    signal.throwIfAborted()
    const queue: KeyQueue = this.queues.get(key) ?? { inUse: 0, waiting: new Set() }
    if (this.inUse < this.size && queue.inUse < this.perKey.maxSlots) {
      this.queues.set(key, queue)
      this.inUse++
      queue.inUse++
    } else if (this.waiting >= this.maxWaiting || queue.waiting.size >= this.perKey.maxWaiting) {
      return null
    } else {
      this.queues.set(key, queue)
      await this.waitForSlot(key, queue, signal)
    }
    return () => this.release(key)
  }

  private waitForSlot(key: string, queue: KeyQueue, signal: AbortSignal): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    const admit = () => {
      queue.waiting.delete(admit)
      this.waiting--
      signal.removeEventListener('abort', abort)
      resolve()
    }
    const abort = () => {
      queue.waiting.delete(admit)
      this.waiting--
      this.deleteIfIdle(key, queue)
      reject(signal.reason)
    }
    queue.waiting.add(admit)
    this.waiting++
    signal.addEventListener('abort', abort, { once: true })
    return promise
  }

  private release(key: string): void {
    const queue = this.queues.get(key)
    if (queue === undefined) return
    queue.inUse--
    this.inUse--
    // Moves the key to the end.
    this.queues.delete(key)
    this.queues.set(key, queue)
    this.deleteIfIdle(key, queue)
    this.admitNext()
  }

  /** Passes the slot to the waiting key with the fewest slots, the first of several. */
  private admitNext(): void {
    let chosen: KeyQueue | undefined
    for (const queue of this.queues.values()) {
      const canEnter = queue.waiting.size > 0 && queue.inUse < this.perKey.maxSlots
      if (canEnter && queue.inUse < (chosen?.inUse ?? this.perKey.maxSlots)) chosen = queue
    }
    const [next] = chosen?.waiting ?? []
    if (!chosen || !next) return
    this.inUse++
    chosen.inUse++
    next()
  }

  private deleteIfIdle(key: string, queue: KeyQueue): void {
    if (queue.inUse === 0 && queue.waiting.size === 0) this.queues.delete(key)
  }
}
