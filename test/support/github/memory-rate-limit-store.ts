import {
  type RateLimitState,
  RateLimitStore,
  type Reservation,
} from '../../../src/github/rest/rate-limit-store.ts'

/** For one process without a database: tests, benches. */
export class MemoryRateLimitStore extends RateLimitStore {
  consecutiveRateLimits = 0
  pauseCount = 0
  pausedUntilMs = 0
  private nextWriteAt = 0
  private isLimitedByWrite = false

  async state(): Promise<RateLimitState> {
    return {
      pausedForMs: this.pausedUntilMs - Date.now(),
      consecutiveRateLimits: this.consecutiveRateLimits,
      pauseCount: this.pauseCount,
    }
  }

  async reserveWrite(_id: string, spacingMs: number, mostWaitMs: number): Promise<Reservation> {
    const waitMs = Math.max(0, this.nextWriteAt - Date.now())
    if (waitMs > mostWaitMs) return { isReserved: false, waitMs }
    this.nextWriteAt = Date.now() + waitMs + spacingMs
    return { isReserved: true, waitMs }
  }

  async reserveCreation(): Promise<Reservation> {
    return { isReserved: true, waitMs: 0 }
  }

  async recordRateLimit(
    _id: string,
    seen: RateLimitState,
    { pauseMs, isWrite }: { pauseMs: number; isWrite: boolean },
  ) {
    this.pausedUntilMs = Math.max(this.pausedUntilMs, Date.now() + pauseMs)
    this.isLimitedByWrite = isWrite
    if (seen.pauseCount === this.pauseCount) {
      this.consecutiveRateLimits++
      this.pauseCount++
    }
    return this.state()
  }

  async recordSuccess(_id: string, seen: RateLimitState, isWrite: boolean): Promise<void> {
    if (seen.pauseCount === this.pauseCount && (isWrite || !this.isLimitedByWrite))
      this.consecutiveRateLimits = 0
  }
}
