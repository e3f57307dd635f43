export interface PerKeyLimits {
  /** How many slots one key may hold at a time. */
  maxSlots: number
  /** How many callers of one key may wait. */
  maxWaiting: number
}

interface KeyQueue {
  inUse: number
  waiting: Set<() => void>
}

/**
 * Lets `size` callers in at a time. Up to `maxWaiting` more wait in line, first come first served. Where callers have
 * keys, each key has its own line and its own share of the slots, and the keys take turns.
 */
export class BoundedSlots {
  private readonly size: number
  private readonly maxWaiting: number
  private readonly perKey: PerKeyLimits
  /** In the order of their turns. A key is here as long as it has a slot or waits for one. */
  private readonly queues = new Map<string, KeyQueue>()
  private inUse = 0
  private waiting = 0

  constructor(
    size: number,
    maxWaiting: number,
    perKey: PerKeyLimits = { maxSlots: size, maxWaiting: maxWaiting },
  ) {
    this.size = size
    this.maxWaiting = maxWaiting
    this.perKey = perKey
  }

  /**
   * Resolves to the function that gives the slot back, to be called once; or to null, at once, when the line is full.
   * Rejects with the signal's reason when that is aborted first.
   */
  async acquire(signal: AbortSignal, key = ''): Promise<(() => void) | null> {
    signal.throwIfAborted()
    const line: KeyQueue = this.queues.get(key) ?? { inUse: 0, waiting: new Set() }
    if (this.inUse < this.size && line.inUse < this.perKey.maxSlots) {
      this.queues.set(key, line)
      this.inUse++
      line.inUse++
    } else if (this.waiting >= this.maxWaiting || line.waiting.size >= this.perKey.maxWaiting) {
      return null
    } else {
      this.queues.set(key, line)
      await this.waitForSlot(key, line, signal)
    }
    return () => this.release(key)
  }

  private waitForSlot(key: string, line: KeyQueue, signal: AbortSignal): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    const go = () => {
      line.waiting.delete(go)
      this.waiting--
      signal.removeEventListener('abort', giveUp)
      resolve()
    }
    const giveUp = () => {
      line.waiting.delete(go)
      this.waiting--
      this.deleteIfIdle(key, line)
      reject(signal.reason)
    }
    line.waiting.add(go)
    this.waiting++
    signal.addEventListener('abort', giveUp, { once: true })
    return promise
  }

  private release(key: string): void {
    const line = this.queues.get(key)
    if (line === undefined) return
    line.inUse--
    this.inUse--
    // Its turn comes after everyone else's.
    this.queues.delete(key)
    this.queues.set(key, line)
    this.deleteIfIdle(key, line)
    this.admitNext()
  }

  /** The slot goes to the key that waits with the fewest slots, the first in turn of several. */
  private admitNext(): void {
    let chosen: KeyQueue | undefined
    for (const line of this.queues.values()) {
      const mayEnter = line.waiting.size > 0 && line.inUse < this.perKey.maxSlots
      if (mayEnter && line.inUse < (chosen?.inUse ?? this.perKey.maxSlots)) chosen = line
    }
    const [next] = chosen?.waiting ?? []
    if (!chosen || !next) return
    this.inUse++
    chosen.inUse++
    next()
  }

  private deleteIfIdle(key: string, line: KeyQueue): void {
    if (line.inUse === 0 && line.waiting.size === 0) this.queues.delete(key)
  }
}
