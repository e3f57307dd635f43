import type { LeasedDeployment } from './leased-deployment.ts'

export interface Progress {
  done: number
  total: number
  unit: string
}

/** Contents below this are pushed before anybody could read a progress. */
const LARGE_PACK_BYTES = 1024 * 1024
const LARGE_FILE_COUNT = 500
/** Each report is an event for everybody: at most two a second. */
const MIN_REPORT_INTERVAL_MS = 500

/** Passes on how far a step is: of large contents only, not too often, one report at a time, none after the end. */
export class ProgressReporter {
  private readonly isLarge: boolean
  private pendingReport: Promise<unknown> | undefined
  private lastReportAtMs = Number.NEGATIVE_INFINITY
  private hasEnded = false

  constructor(
    work: Pick<LeasedDeployment, 'packBytes' | 'fileCount'>,
    private readonly store: (progress: Progress) => Promise<unknown>,
  ) {
    this.isLarge = work.packBytes >= LARGE_PACK_BYTES || work.fileCount >= LARGE_FILE_COUNT
  }

  report(progress: Progress): void {
    if (
      !this.isLarge ||
      this.hasEnded ||
      this.pendingReport ||
      performance.now() - this.lastReportAtMs < MIN_REPORT_INTERVAL_MS
    )
      return
    this.lastReportAtMs = performance.now()
    // A report that could not be stored is not missed; the step's own result will tell.
    this.pendingReport = this.store(progress)
      .catch(() => undefined)
      .finally(() => {
        this.pendingReport = undefined
      })
  }

  async end(): Promise<void> {
    this.hasEnded = true
    await this.pendingReport
  }
}
