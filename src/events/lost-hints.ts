/**
 * Notices when hints get lost: the safety look then finds events that nobody told of. A hint that is still on its way
 * at the moment of the look is not lost, so each look is judged at the next one.
 */
export class LostHints {
  private toldUpTo = 0
  /** What the last safety look found beyond what was told by then. */
  private unexplained = 0
  private lost = 0

  /** How often a safety look has found what no hint told. */
  get count(): number {
    return this.lost
  }

  /** From here on; what was before is of no interest. */
  beginAt(position: number): void {
    this.toldUpTo = position
    this.unexplained = 0
  }

  /** A hint has told of events up to this position; one without a position tells of all that there is by now. */
  told(position: number): void {
    this.toldUpTo = Math.max(this.toldUpTo, position)
  }

  /** A safety look has found events up to this position. True: what the look before it found has never been told. */
  found(position: number): boolean {
    const wasLost = this.unexplained > this.toldUpTo
    if (wasLost) {
      this.lost++
      // Said once: later hints tell of later events.
      this.toldUpTo = this.unexplained
    }
    this.unexplained = position > this.toldUpTo ? position : 0
    return wasLost
  }
}
