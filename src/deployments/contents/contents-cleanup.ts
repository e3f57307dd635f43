import { setTimeout as sleep } from 'node:timers/promises'
import { Injectable, Logger, type OnApplicationBootstrap, type OnModuleDestroy } from '@nestjs/common'
import { Config } from '../../config/config.ts'
import { Database } from '../../database/database.ts'

/** Small, since contents of up to 32 MiB each keep the disk busy. */
const BATCH_SIZE = 20
const PAUSE_BETWEEN_BATCHES_MS = 200
/** Per cleanup; the next one continues. */
const MAX_BATCHES = 500
const CLEANUP_INTERVAL_MS = 3_600_000
const FIRST_CLEANUP_DELAY_MS = 60_000

/**
 * Removes the contents of deployments that ended `RETENTION_DAYS` ago, but keeps their events. Runs on every
 * node, skipping rows that another node has locked, so that no row is processed twice and no node waits.
 */
@Injectable()
export class ContentsCleanup implements OnApplicationBootstrap, OnModuleDestroy {
  private readonly logger = new Logger(ContentsCleanup.name)
  private readonly stopController = new AbortController()
  private running: Promise<void> | undefined

  constructor(
    private readonly config: Config,
    private readonly database: Database,
  ) {}

  onApplicationBootstrap(): void {
    this.running = this.runPeriodically()
  }

  async onModuleDestroy(): Promise<void> {
    this.stopController.abort()
    await this.running
  }

  /** Resolves to the number of deployments whose contents were removed. */
  async removeExpired(): Promise<number> {
    const { signal } = this.stopController
    let removed = 0
    for (let batch = 0; batch < MAX_BATCHES && !signal.aborted; batch++) {
      const rows = await this.database.query(REMOVE_CONTENTS, [this.config.retentionDays, BATCH_SIZE])
      removed += rows.length
      if (rows.length < BATCH_SIZE) break
      await sleep(PAUSE_BETWEEN_BATCHES_MS, undefined, { signal }).catch(() => undefined)
    }
    return removed
  }

  /** Never rejects. Pauses are random, so that nodes that start together do not clean up together. */
  private async runPeriodically(): Promise<void> {
    const { signal } = this.stopController
    const pause = (ms: number) =>
      sleep(ms * (0.5 + Math.random()), undefined, { signal, ref: false }).catch(() => undefined)
    await pause(FIRST_CLEANUP_DELAY_MS)
    while (!signal.aborted) {
      try {
        const removed = await this.removeExpired()
        if (removed > 0) this.logger.log('Removed expired contents', { removed })
      } catch (error) {
        this.logger.warn('Could not remove expired contents; retrying in about an hour', { error })
      }
      await pause(CLEANUP_INTERVAL_MS)
    }
  }
}

// The row stays locked until its contents are deleted: a concurrent retry waits, then finds them removed.
const REMOVE_CONTENTS = `
  with ended as (
    select id from deployments
    where finished_at < clock_timestamp() - $1 * interval '1 day' and contents_removed_at is null
    order by finished_at limit $2 for update skip locked
  ), removed as (
    delete from deployment_contents where deployment_id in (select id from ended)
  )
  update deployments d set contents_removed_at = clock_timestamp() from ended where d.id = ended.id
  returning d.id`
