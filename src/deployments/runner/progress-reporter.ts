import type { LeasedDeployment } from './leased-deployment.ts'

export interface Progress {
  done: number
  total: number
  unit: string
}

/** Smaller contents are pushed too quickly for progress to be readable. */
const MIN_PACK_BYTES = 1024 * 1024
const MIN_FILE_COUNT = 500
/** Every subscriber receives each report as an event. */
const MIN_REPORT_INTERVAL_MS = 500

/**
 * Stores the progress of a step: only for large contents, rate-limited, one report at a
 * time, none after the end.
 */
export class ProgressReporter {
  private readonly isEnabled: boolean
  private pendingReport: Promise<unknown> | undefined
  private lastReportAtMs = Number.NEGATIVE_INFINITY
  private hasEnded = false

  constructor(
    deployment: Pick<LeasedDeployment, 'packBytes' | 'fileCount'>,
    private readonly store: (progress: Progress) => Promise<unknown>,
  ) {
    this.isEnabled = deployment.packBytes >= MIN_PACK_BYTES || deployment.fileCount >= MIN_FILE_COUNT
  }

  report(progress: Progress): void {
    const nowMs = performance.now()
    if (!this.isEnabled || this.hasEnded || this.pendingReport) return
    if (nowMs - this.lastReportAtMs < MIN_REPORT_INTERVAL_MS) return
    this.lastReportAtMs = nowMs
    // A failed report does not matter: the step's result follows.
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
