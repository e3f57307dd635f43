/**
 * Notices when hints get lost: the safety look then finds events that nobody told of. A hint that is still on its way
 * at the moment of the look is not lost, so each look is judged at the next one.
 */
export class MissedNotifications {
  private lastNotified = 0
  /** What the last safety look found beyond what was told by then. */
  private lastUnnotified = 0
  private missedCount = 0

  /** How often a safety look has found what no hint told. */
  get count(): number {
    return this.missedCount
  }

  /** From here on; what was before is of no interest. */
  reset(position: number): void {
    this.lastNotified = position
    this.lastUnnotified = 0
  }

  /** A hint has told of events up to this position; one without a position tells of all that there is by now. */
  recordNotification(position: number): void {
    this.lastNotified = Math.max(this.lastNotified, position)
  }

  /** A safety look has found events up to this position. True: what the look before it found has never been told. */
  recordPoll(position: number): boolean {
    const wasLost = this.lastUnnotified > this.lastNotified
    if (wasLost) {
      this.missedCount++
      // Said once: later hints tell of later events.
      this.lastNotified = this.lastUnnotified
    }
    this.lastUnnotified = position > this.lastNotified ? position : 0
    return wasLost
  }
}
