/**
 * Counts polls that found events for which no notification arrived. A notification can still be on its way
 * when a poll finds its event, so each poll is judged at the next one.
 */
export class MissedNotifications {
  private lastNotified = 0
  /** The newest position that the previous poll found without a notification; 0 if there was none. */
  private lastUnnotified = 0
  private missedCount = 0

  get count(): number {
    return this.missedCount
  }

  /** Starts over at a position; earlier events do not count. */
  reset(position: number): void {
    this.lastNotified = position
    this.lastUnnotified = 0
  }

  /** A notification announced the events up to this position. */
  recordNotification(position: number): void {
    this.lastNotified = Math.max(this.lastNotified, position)
  }

  /** A poll read the log up to this position. True: the previous poll found events without a notification. */
  recordPoll(position: number): boolean {
    const wasMissed = this.lastUnnotified > this.lastNotified
    if (wasMissed) {
      this.missedCount++
      // Reported once: later notifications announce later events.
      this.lastNotified = this.lastUnnotified
    }
    this.lastUnnotified = position > this.lastNotified ? position : 0
    return wasMissed
  }
}
