export interface SharedLimits {
  /** How many slots one key may hold at a time. */
  slots: number
  /** How many callers of one key may wait. */
  waiting: number
}

interface Line {
  taken: number
  waiting: Set<() => void>
}

/**
 * Lets `size` callers in at a time. Up to `maxWaiting` more wait in line, first come first served. Where callers have
 * keys, each key has its own line and its own share of the slots, and the keys take turns.
 */
export class BoundedSlots {
  private readonly size: number
  private readonly maxWaiting: number
  private readonly perKey: SharedLimits
  /** In the order of their turns. A key is here as long as it has a slot or waits for one. */
  private readonly lines = new Map<string, Line>()
  private taken = 0
  private waiting = 0

  constructor(size: number, maxWaiting: number, perKey: SharedLimits = { slots: size, waiting: maxWaiting }) {
    this.size = size
    this.maxWaiting = maxWaiting
    this.perKey = perKey
  }

  /**
   * Resolves to the function that gives the slot back, to be called once; or to null, at once, when the line is full.
   * Rejects with the signal's reason when that is aborted first.
   */
  async enter(signal: AbortSignal, key = ''): Promise<(() => void) | null> {
    signal.throwIfAborted()
    const line: Line = this.lines.get(key) ?? { taken: 0, waiting: new Set() }
    if (this.taken < this.size && line.taken < this.perKey.slots) {
      this.lines.set(key, line)
      this.taken++
      line.taken++
    } else if (this.waiting >= this.maxWaiting || line.waiting.size >= this.perKey.waiting) {
      return null
    } else {
      this.lines.set(key, line)
      await this.waitInLine(key, line, signal)
    }
    return () => this.leave(key)
  }

  private waitInLine(key: string, line: Line, signal: AbortSignal): Promise<void> {
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
      this.forgetIfIdle(key, line)
      reject(signal.reason)
    }
    line.waiting.add(go)
    this.waiting++
    signal.addEventListener('abort', giveUp, { once: true })
    return promise
  }

  private leave(key: string): void {
    const line = this.lines.get(key)
    if (line === undefined) return
    line.taken--
    this.taken--
    // Its turn comes after everyone else's.
    this.lines.delete(key)
    this.lines.set(key, line)
    this.forgetIfIdle(key, line)
    this.admitNext()
  }

  /** The slot goes to the key that waits with the fewest slots, the first in turn of several. */
  private admitNext(): void {
    let chosen: Line | undefined
    for (const line of this.lines.values()) {
      const mayEnter = line.waiting.size > 0 && line.taken < this.perKey.slots
      if (mayEnter && line.taken < (chosen?.taken ?? this.perKey.slots)) chosen = line
    }
    const [next] = chosen?.waiting ?? []
    if (!chosen || !next) return
    this.taken++
    chosen.taken++
    next()
  }

  private forgetIfIdle(key: string, line: Line): void {
    if (line.taken === 0 && line.waiting.size === 0) this.lines.delete(key)
  }
}
