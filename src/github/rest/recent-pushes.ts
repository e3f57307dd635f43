const SETTLING_MS = 30_000
const MOST_REMEMBERED = 1_000

/** Branches that this process has just pushed, and which GitHub may not show everywhere yet. */
export class RecentPushes {
  readonly #until = new Map<string, number>()

  note(fullName: string, ref: string): void {
    const key = keyOf(fullName, ref)
    this.#until.delete(key)
    this.#until.set(key, performance.now() + SETTLING_MS)
    const [oldest = key] = this.#until.keys()
    if (this.#until.size > MOST_REMEMBERED) this.#until.delete(oldest)
  }

  has(fullName: string, ref: string): boolean {
    return (this.#until.get(keyOf(fullName, ref)) ?? 0) > performance.now()
  }
}

function keyOf(fullName: string, ref: string): string {
  return `${fullName.toLowerCase()} ${ref}`
}
