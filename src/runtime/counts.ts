/** Counts by key. */
export class Counts {
  private readonly counts = new Map<string, number>()

  /** The number of keys with a count above zero. */
  get size(): number {
    return this.counts.size
  }

  get(key: string): number {
    return this.counts.get(key) ?? 0
  }

  add(key: string, count = 1): void {
    this.counts.set(key, this.get(key) + count)
  }

  remove(key: string, count = 1): void {
    const rest = this.get(key) - count
    if (rest > 0) this.counts.set(key, rest)
    else this.counts.delete(key)
  }
}
