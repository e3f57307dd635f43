import type { Work } from './deployment-work.ts'

export interface Progress {
  done: number
  total: number
  unit: string
}

/** Contents below this are pushed before anybody could read a progress. */
const LARGE_PACK_BYTES = 1024 * 1024
const LARGE_FILE_COUNT = 500
/** Each report is an event for everybody: at most two a second. */
const LEAST_PAUSE_MS = 500

/** Passes on how far a step is: of large contents only, not too often, one report at a time, none after the end. */
export class ProgressReport {
  private readonly isLarge: boolean
  private storing: Promise<unknown> | undefined
  private reportedAt = Number.NEGATIVE_INFINITY
  private ended = false

  constructor(
    work: Pick<Work, 'packBytes' | 'fileCount'>,
    private readonly store: (progress: Progress) => Promise<unknown>,
  ) {
    this.isLarge = work.packBytes >= LARGE_PACK_BYTES || work.fileCount >= LARGE_FILE_COUNT
  }

  report(progress: Progress): void {
    if (!this.isLarge || this.ended || this.storing || performance.now() - this.reportedAt < LEAST_PAUSE_MS)
      return
    this.reportedAt = performance.now()
    // A report that could not be stored is not missed; the step's own result will tell.
    this.storing = this.store(progress)
      .catch(() => undefined)
      .finally(() => {
        this.storing = undefined
      })
  }

  async end(): Promise<void> {
    this.ended = true
    await this.storing
  }
}
