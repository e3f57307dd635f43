import {
  type RateLimitState,
  RateLimitStore,
  type Reservation,
} from '../../../src/github/rest/rate-limit-store.ts'

/** For one process without a database: tests and benchmarks. */
export class MemoryRateLimitStore extends RateLimitStore {
  consecutiveRateLimits = 0
  pauseCount = 0
  pausedUntilMs = 0
  private nextWriteAtMs = 0
  private isLimitedByWrite = false

  async state(): Promise<RateLimitState> {
    return {
      pausedForMs: this.pausedUntilMs - Date.now(),
      consecutiveRateLimits: this.consecutiveRateLimits,
      pauseCount: this.pauseCount,
    }
  }

  async reserveWrite(_id: string, spacingMs: number, maxWaitMs: number): Promise<Reservation> {
    const waitMs = Math.max(0, this.nextWriteAtMs - Date.now())
    if (waitMs > maxWaitMs) return { isReserved: false, waitMs }
    this.nextWriteAtMs = Date.now() + waitMs + spacingMs
    return { isReserved: true, waitMs }
  }

  async reserveCreation(): Promise<Reservation> {
    return { isReserved: true, waitMs: 0 }
  }

  async recordRateLimit(
    _id: string,
    state: RateLimitState,
    { pauseMs, isWrite }: { pauseMs: number; isWrite: boolean },
  ) {
    this.pausedUntilMs = Math.max(this.pausedUntilMs, Date.now() + pauseMs)
    this.isLimitedByWrite = isWrite
    if (state.pauseCount === this.pauseCount) {
      this.consecutiveRateLimits++
      this.pauseCount++
    }
    return this.state()
  }

  async recordSuccess(_id: string, state: RateLimitState, isWrite: boolean): Promise<void> {
    if (state.pauseCount === this.pauseCount && (isWrite || !this.isLimitedByWrite))
      this.consecutiveRateLimits = 0
  }
}
