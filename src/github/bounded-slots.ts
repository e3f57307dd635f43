/** Lets `size` callers in at a time. Up to `maxWaiting` more wait in line, first come first served. */
export class BoundedSlots {
  readonly #size: number
  readonly #maxWaiting: number
  readonly #waiting = new Set<() => void>()
  #taken = 0

  constructor(size: number, maxWaiting: number) {
    this.#size = size
    this.#maxWaiting = maxWaiting
  }

  /**
   * Resolves to the function that gives the slot back, to be called once; or to null, at once, when the line is full.
   * Rejects with the signal's reason when that is aborted first.
   */
  async enter(signal: AbortSignal): Promise<(() => void) | null> {
    signal.throwIfAborted()
    if (this.#taken < this.#size) this.#taken++
    else if (this.#waiting.size >= this.#maxWaiting) return null
    else await this.#waitInLine(signal)
    return () => this.#leave()
  }

  #waitInLine(signal: AbortSignal): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    const go = () => {
      signal.removeEventListener('abort', giveUp)
      resolve()
    }
    const giveUp = () => {
      this.#waiting.delete(go)
      reject(signal.reason)
    }
    this.#waiting.add(go)
    signal.addEventListener('abort', giveUp, { once: true })
    return promise
  }

  /** The slot passes on to the next in line without ever being free. */
  #leave(): void {
    const [next] = this.#waiting
    if (next === undefined) {
      this.#taken--
    } else {
      this.#waiting.delete(next)
      next()
    }
  }
}
