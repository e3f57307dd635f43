import { Injectable } from '@nestjs/common'
import { Database } from '../../database/database.ts'
import type { DedicatedConnection } from '../../database/dedicated-connection.ts'
import type { Queryable } from '../../database/statement.ts'
import type { DeploymentProblem } from '../../events/deployment-event.ts'
import { EventLog, type EventRow } from '../../events/event-log.ts'
import { CANCELLED_TEXT, QUEUED_TEXT, STEP_TEXTS } from '../deployment-texts.ts'
import type { StepResult } from './deployment-steps.ts'
import { type Lease, type LeasedDeployment, leasedDeploymentColumns } from './leased-deployment.ts'
import { type Transition, TransitionBatcher } from './transition-batcher.ts'

/** A runner whose write takes longer has lost its lease anyway. */
const STATEMENT_TIMEOUT_MS = 5_000

export type LeasedDeploymentRow = EventRow & LeasedDeployment

/** The result of a heartbeat for a lease that the holder still has. */
export interface RenewedLease extends Pick<Lease, 'id' | 'epoch'> {
  cancelRequested: boolean
}

/** A runner, and how long its leases last without a heartbeat. */
export interface LeaseHolder {
  name: string
  leaseMs: number
}

/**
 * The state transitions that a runner makes, one function each. Transitions of a leased deployment are
 * fenced: they apply only while the lease's epoch and owner are the current ones, and return whether they
 * did. All times are the database's.
 *
 *   QUEUED, WAITING ── claimNext ──> RUNNING ── advance … finish ──> SUCCEEDED
 *                                    RUNNING ── fail, cancel ──────> FAILED, CANCELLED
 *                                    RUNNING ── wait, pause ───────> WAITING
 *   RUNNING, lease expired ── reclaimExpired ──> RUNNING (next epoch)     no free slot: requeueExpired ──> QUEUED
 */
@Injectable()
export class LeaseStore {
  /** A separate connection, so that requests cannot occupy it. */
  private readonly connection: DedicatedConnection
  private readonly transitions: TransitionBatcher

  constructor(
    database: Database,
    private readonly log: EventLog,
  ) {
    this.connection = database.openDedicatedConnection(STATEMENT_TIMEOUT_MS)
    this.transitions = new TransitionBatcher(this.connection)
  }

  /**
   * Claims deployments that are due: organizations take turns, and within one the longest wait goes first.
   */
  claimNext(holder: LeaseHolder, limit: number): Promise<LeasedDeployment[]> {
    const values = [holder.name, holder.leaseMs, JSON.stringify(STEP_TEXTS), limit]
    return this.log.appendAll(() => this.connection.query<LeasedDeploymentRow>(CLAIM_NEXT, values))
  }

  /** Claims one whose lease has expired. Appends no event: it stays `RUNNING`. */
  reclaimExpired(holder: LeaseHolder): Promise<LeasedDeployment[]> {
    return this.connection.query<LeasedDeployment>(RECLAIM_EXPIRED, [holder.name, holder.leaseMs])
  }

  /** Queues one that no runner has reclaimed for another lease duration: all runners are busy. */
  async requeueExpired(holder: LeaseHolder): Promise<boolean> {
    const row = await this.log.append(async () => {
      const [row] = await this.connection.query<EventRow>(REQUEUE_EXPIRED, [holder.leaseMs, QUEUED_TEXT])
      return row
    })
    return row !== undefined
  }

  /**
   * Renews only the holder's leases of these deployments: the lease of a run that could not store its end
   * must expire. A lease missing from the result is lost.
   */
  renewLeases(holder: LeaseHolder, ids: readonly string[], through: Queryable): Promise<RenewedLease[]> {
    return through.query<RenewedLease>(
      `update deployments set lease_expires_at = clock_timestamp() + $2 * interval '1 ms'
       where leased_by = $1 and status = 'RUNNING' and id = any($3)
       returning id, epoch, cancel_requested as "cancelRequested"`,
      [holder.name, holder.leaseMs, ids],
    )
  }

  /**
   * Applies only if `lease.step` is still the last step reached: after a lossy failover, no step is skipped.
   */
  advance(lease: Lease & Pick<LeasedDeployment, 'step'>, result: StepResult): Promise<boolean> {
    const { repository, commitSha } = result
    return this.applyTransition(lease, {
      fromStep: lease.step,
      changes: {
        step: result.step,
        text: STEP_TEXTS[result.step],
        progress: null,
        error: null,
        retry_count: 0,
        reclaim_count: 0,
        ...(repository && {
          repository_id: repository.id,
          repository_url: repository.url,
          clone_url: repository.cloneUrl,
        }),
        ...(commitSha !== undefined && { commit_sha: commitSha }),
      },
    })
  }

  reportProgress(lease: Lease, progress: { done: number; total: number; unit: string }): Promise<boolean> {
    return this.applyTransition(lease, { changes: { progress } })
  }

  finish(lease: Lease): Promise<boolean> {
    const changes = { step: 'DONE', status: 'SUCCEEDED', text: STEP_TEXTS.DONE, progress: null }
    return this.applyTransition(lease, { fromStep: 'PUSH_CONTENTS', changes, hasEnded: true })
  }

  fail(lease: Lease, text: string, error: DeploymentProblem): Promise<boolean> {
    return this.applyTransition(lease, {
      changes: { status: 'FAILED', text, error, progress: null },
      hasEnded: true,
    })
  }

  cancel(lease: Lease): Promise<boolean> {
    const changes = { status: 'CANCELLED', text: CANCELLED_TEXT, progress: null }
    return this.applyTransition(lease, { changes, hasEnded: true })
  }

  /** Frees the slot until the next retry. Does not apply once a cancellation is requested. */
  wait(
    lease: Lease & Pick<LeasedDeployment, 'retryCount'>,
    delayMs: number,
    text: string,
    error: DeploymentProblem,
  ): Promise<boolean> {
    const changes = { status: 'WAITING', text, error, progress: null, retry_count: lease.retryCount + 1 }
    return this.applyTransition(lease, { changes, delayMs, unlessCancelled: true })
  }

  /** Like `wait`, until a time that the forge named; does not count as a retry. */
  pause(lease: Lease, delayMs: number, text: string, error: DeploymentProblem): Promise<boolean> {
    const changes = { status: 'WAITING', text, error, progress: null }
    return this.applyTransition(lease, { changes, delayMs, unlessCancelled: true })
  }

  /** Ends the lease, so that any node can take over at once. */
  async release(lease: Lease): Promise<void> {
    await this.connection.query(
      `update deployments set leased_by = null, lease_expires_at = clock_timestamp()
       where id = $1 and epoch = $2 and leased_by = $3 and status = 'RUNNING'`,
      [lease.id, lease.epoch, lease.owner],
    )
  }

  private async applyTransition(lease: Lease, transition: Omit<Transition, 'lease'>): Promise<boolean> {
    const { id, epoch, owner } = lease
    const row = await this.log.append(() =>
      this.transitions.apply({ ...transition, lease: { id, epoch, owner } }),
    )
    return row !== undefined
  }
}

const CLAIM_NEXT = `
  with picked as (
    select id from deployments
    where status in ('QUEUED', 'WAITING') and run_at <= clock_timestamp()
    order by queue_rank, run_at limit $4 for update skip locked
  ), claimed as (
    update deployments d set
      status = 'RUNNING', text = $3::jsonb ->> d.step, waiting_until = null, error = null,
      leased_by = $1, lease_expires_at = clock_timestamp() + $2 * interval '1 ms', epoch = d.epoch + 1,
      sequence = d.sequence + 1, updated_at = clock_timestamp()
    from picked where d.id = picked.id
    returning d.*
  )
  select e.*, ${leasedDeploymentColumns('claimed')}
  from claimed, lateral append_event(row(claimed.*)::deployments, null) e`

const RECLAIM_EXPIRED = `
  with picked as (
    select id from deployments
    where status = 'RUNNING' and lease_expires_at <= clock_timestamp()
    order by lease_expires_at limit 1 for update skip locked
  )
  update deployments d set
    leased_by = $1, lease_expires_at = clock_timestamp() + $2 * interval '1 ms',
    -- A released deployment has no owner: no runner died.
    epoch = d.epoch + 1, reclaim_count = d.reclaim_count + (d.leased_by is not null)::int
  from picked where d.id = picked.id
  returning ${leasedDeploymentColumns('d')}`

const REQUEUE_EXPIRED = `
  with picked as (
    select id from deployments
    where status = 'RUNNING' and lease_expires_at <= clock_timestamp() - $1 * interval '1 ms'
    order by lease_expires_at limit 1 for update skip locked
  ), moved as (
    update deployments d set
      status = 'QUEUED', text = $2, leased_by = null, lease_expires_at = null, epoch = d.epoch + 1,
      sequence = d.sequence + 1, updated_at = clock_timestamp()
    from picked where d.id = picked.id
    returning d.*
  )
  select e.* from moved, lateral append_event(row(moved.*)::deployments, null) e`
