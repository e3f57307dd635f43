/** Looks at something in the database; several calls at once share one look, and one more follows for the latecomers. */
export class CoalescedTask {
  private running: Promise<void> | undefined
  private isRerunRequested = false

  constructor(
    private readonly task: () => Promise<void>,
    /** It is not repeated by itself: somebody has to look again. */
    private readonly onError: (error: unknown) => void,
  ) {}

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

  /** Resolves when the look that is under way has ended, if there is one; another may follow it. */
  async currentRun(): Promise<void> {
    await this.running
  }

  /** Resolves when there is none under way any more. */
  async idle(): Promise<void> {
    while (this.running) await this.running
  }
}
