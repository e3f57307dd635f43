/** Runs a task on request. Requests during a run share one further run, which starts after it. */
export class CoalescedTask {
  private readonly task: () => Promise<void>
  private readonly onError: (error: unknown) => void
  private running: Promise<void> | undefined
  private isRerunRequested = false

  /** @param onError reports an error; the task does not run again until the next request */
  constructor(task: () => Promise<void>, onError: (error: unknown) => void) {
    this.task = task
    this.onError = onError
  }

  run(): void {
    if (this.running) {
      this.isRerunRequested = true
      return
    }
    this.running = this.task()
      .catch(this.onError)
      .finally(() => {
        this.running = undefined
        if (this.isRerunRequested) {
          this.isRerunRequested = false
          this.run()
        }
      })
  }

  /** Resolves when no run is in progress or requested. */
  async idle(): Promise<void> {
    while (this.running) await this.running
  }
}

/** Lets concurrent callers with the same key share one call and its result. */
export class SharedCalls<Result> {
  private readonly pending = new Map<string, Promise<Result>>()

  run(key: string, call: () => Promise<Result>): Promise<Result> {
    const pending = this.pending.get(key) ?? call().finally(() => this.pending.delete(key))
    this.pending.set(key, pending)
    return pending
  }

  /** Resolves when the calls in progress have settled. */
  async settled(): Promise<void> {
    await Promise.allSettled(this.pending.values())
  }
}
