/** Looks at something in the database; several calls at once share one look, and one more follows for the latecomers. */
export class SharedLook {
  private underWay: Promise<void> | undefined
  private isWantedAgain = false

  constructor(
    private readonly lookNow: () => Promise<void>,
    /** It is not repeated by itself: somebody has to look again. */
    private readonly failed: (error: unknown) => void,
  ) {}

  begin(): void {
    if (this.underWay) {
      this.isWantedAgain = true
      return
    }
    this.underWay = this.lookNow()
      .catch(this.failed)
      .finally(() => {
        this.underWay = undefined
        if (this.isWantedAgain) {
          this.isWantedAgain = false
          this.begin()
        }
      })
  }

  /** Resolves when the look that is under way has ended, if there is one; another may follow it. */
  async ended(): Promise<void> {
    await this.underWay
  }

  /** Resolves when there is none under way any more. */
  async settled(): Promise<void> {
    while (this.underWay) await this.underWay
  }
}
