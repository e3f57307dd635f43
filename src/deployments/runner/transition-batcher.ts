import { DatabaseUnavailableError } from '../../database/errors.ts'
import type { Queryable } from '../../database/statement.ts'
import type { DeploymentStep } from '../../events/deployment-event.ts'
import type { EventRow } from '../../events/event-log.ts'
import type { Lease } from './leased-deployment.ts'

/** A state transition of a leased deployment. Applies only while the lease is valid. */
export interface Transition {
  lease: Lease
  /** New values for columns of `deployments`; other columns do not change. */
  changes: Readonly<Record<string, unknown>>
  /** Applies only at this step. */
  fromStep?: DeploymentStep
  /** Does not apply once a cancellation is requested. */
  unlessCancelled?: boolean
  /** The deployment is due again after this time. */
  delayMs?: number
  hasEnded?: boolean
}

/** Per transaction. Also a hint to the planner, which would otherwise scan the whole table. */
const MAX_BATCH_SIZE = 20

interface PendingTransition {
  transition: Transition
  resolve(row: EventRow | undefined): void
  reject(error: unknown): void
}

/**
 * Group commit: applies transitions, one statement at a time. Those that arrive while a statement runs
 * share the next one, with one transaction and one flush. Each transition applies or not,
 * independently of the others.
 */
export class TransitionBatcher {
  private pending: PendingTransition[] = []
  private isApplying = false

  constructor(private readonly connection: Queryable) {}

  /** Resolves, after the commit, to the transition's event; to undefined if it did not apply. */
  apply(transition: Transition): Promise<EventRow | undefined> {
    return new Promise((resolve, reject) => {
      this.pending.push({ transition, resolve, reject })
      if (!this.isApplying) void this.applyPending()
    })
  }

  private async applyPending(): Promise<void> {
    this.isApplying = true
    while (this.pending.length > 0) await this.applyBatch(this.nextBatch())
    this.isApplying = false
  }

  /** At most one transition per deployment: a statement changes a row once. */
  private nextBatch(): PendingTransition[] {
    const batch = new Map<string, PendingTransition>()
    this.pending = this.pending.filter((pending) => {
      const { id } = pending.transition.lease
      if (batch.size >= MAX_BATCH_SIZE || batch.has(id)) return true
      batch.set(id, pending)
      return false
    })
    return [...batch.values()]
  }

  /** Never rejects. */
  private async applyBatch(batch: readonly PendingTransition[]): Promise<void> {
    try {
      const rows = await this.connection.query<EventRow>(APPLY_TRANSITIONS, [
        JSON.stringify(batch.map(({ transition }) => transition)),
      ])
      const byDeployment = new Map(batch.map((pending) => [pending.transition.lease.id, pending]))
      // In log order, so that they are published in that order: a notification out of order
      // causes a read of the log.
      for (const row of rows.toSorted((a, b) => a.position - b.position)) {
        byDeployment.get(row.deployment_id)?.resolve(row)
      }
      // No effect on those resolved above.
      for (const { resolve } of batch) resolve(undefined)
    } catch (error) {
      if (batch.length === 1 || error instanceof DatabaseUnavailableError) {
        for (const { reject } of batch) reject(error)
      } else {
        // One of them prevented all others from being stored: apply each separately.
        for (const pending of batch) await this.applyBatch([pending])
      }
    }
  }
}

const APPLY_TRANSITIONS = `
  with moves as (
    select (m.lease ->> 'id')::uuid as id, (m.lease ->> 'epoch')::int as epoch, m.lease ->> 'owner' as owner, m.changes,
      m."fromStep" as from_step, m."unlessCancelled" as unless_cancelled, m."delayMs" * interval '1 ms' as delay,
      m."hasEnded" as has_ended
    from jsonb_to_recordset($1::jsonb) as m (
      lease jsonb, changes jsonb, "fromStep" text, "unlessCancelled" boolean, "delayMs" float8, "hasEnded" boolean
    )
    limit ${MAX_BATCH_SIZE}
  ), moved as (
    update deployments d set
      (
        step, status, text, progress, error, retry_count, reclaim_count, repository_id, repository_url, clone_url,
        commit_sha
      ) = (
        select n.step, n.status, n.text, n.progress, n.error, n.retry_count, n.reclaim_count, n.repository_id,
          n.repository_url, n.clone_url, n.commit_sha
        from jsonb_populate_record(d, m.changes) n
      ),
      run_at = coalesce(clock_timestamp() + m.delay, run_at),
      waiting_until = clock_timestamp() + m.delay,
      finished_at = case when m.has_ended then clock_timestamp() end,
      leased_by = case when m.has_ended or m.delay is not null then null else leased_by end,
      lease_expires_at = case when m.has_ended or m.delay is not null then null else lease_expires_at end,
      sequence = sequence + 1, updated_at = clock_timestamp()
    from moves m
    where d.id = m.id and d.epoch = m.epoch and d.leased_by = m.owner and d.status = 'RUNNING'
      and d.step = coalesce(m.from_step, d.step) and not (d.cancel_requested and coalesce(m.unless_cancelled, false))
    returning d.*
  )
  select e.* from moved, lateral append_event(row(moved.*)::deployments, null) e`
