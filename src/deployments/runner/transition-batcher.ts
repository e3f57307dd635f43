import type { Queryable } from '../../database/database.ts'
import { DatabaseUnavailableError } from '../../database/errors.ts'
import type { DeploymentStep } from '../../events/deployment-event.ts'
import type { EventRow } from '../../events/event-log.ts'
import type { Lease } from './leased-deployment.ts'

/** What becomes of a deployment that is held. Applies only while the lease does. */
export interface Transition {
  lease: Lease
  /** Columns of `deployments`, and what they become; the others stay as they are. */
  changes: Readonly<Record<string, unknown>>
  /** Only from this step. */
  fromStep?: DeploymentStep
  /** Not while a cancellation is asked for. */
  unlessCancelled?: boolean
  /** It is to run again after this time. */
  delayMs?: number
  hasEnded?: boolean
}

/** In one transaction; and for the planner, which would otherwise rather read the whole table. */
const MAX_BATCH_SIZE = 20

interface PendingTransition {
  transition: Transition
  resolve(row: EventRow | undefined): void
  reject(error: unknown): void
}

/**
 * Makes moves one statement after the other, on a connection of its own: what comes while a statement is under way goes
 * with the next one, in one transaction with one flush. Each move applies by itself, or does not.
 */
export class TransitionBatcher {
  private pending: PendingTransition[] = []
  private isApplying = false

  constructor(private readonly connection: Queryable) {}

  /** Resolves, after the commit, to the move's event; to undefined where it did not apply. */
  apply(move: Transition): Promise<EventRow | undefined> {
    return new Promise((resolve, reject) => {
      this.pending.push({ transition: move, resolve, reject })
      if (!this.isApplying) void this.applyPending()
    })
  }

  private async applyPending(): Promise<void> {
    this.isApplying = true
    while (this.pending.length > 0) await this.applyBatch(this.nextBatch())
    this.isApplying = false
  }

  /** One move of a deployment at a time: a statement changes a row once. */
  private nextBatch(): PendingTransition[] {
    const taken = new Map<string, PendingTransition>()
    this.pending = this.pending.filter((one) => {
      const { id } = one.transition.lease
      if (taken.size >= MAX_BATCH_SIZE || taken.has(id)) return true
      taken.set(id, one)
      return false
    })
    return [...taken.values()]
  }

  /** Never rejects. */
  private async applyBatch(some: readonly PendingTransition[]): Promise<void> {
    try {
      const rows = await this.connection.query<EventRow>(APPLY_TRANSITIONS, [
        JSON.stringify(some.map(({ transition: move }) => move)),
      ])
      const byDeployment = new Map(some.map((one) => [one.transition.lease.id, one]))
      // In the order of the log, in which they are then told: a hint that comes too early costs a read.
      for (const row of rows.toSorted((a, b) => a.position - b.position)) {
        byDeployment.get(row.deployment_id)?.resolve(row)
      }
      // Nothing more for those that were made.
      for (const { resolve } of some) resolve(undefined)
    } catch (error) {
      if (some.length === 1 || error instanceof DatabaseUnavailableError) {
        for (const { reject } of some) reject(error)
      } else {
        // One of them is at fault, and nothing is stored.
        for (const one of some) await this.applyBatch([one])
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
