import { Injectable } from '@nestjs/common'
import { type AuditEntry, appendAuditEntry } from '../auth/audit-log.ts'
import type { Organizations, Subject } from '../auth/rights.ts'
import { Database } from '../database/database.ts'
import type { Queryable } from '../database/statement.ts'
import type { DeploymentSnapshot, DeploymentStatus } from '../events/deployment-event.ts'
import { EventLog } from '../events/event-log.ts'
import type { UnpackedContents } from '../github/git/commit-pack.ts'
import { insertContents } from './contents/stored-contents.ts'
import { CANCELLED_TEXT, QUEUED_TEXT, STEP_TEXTS } from './deployment-texts.ts'
import type { LeasedDeploymentRow, LeaseHolder } from './runner/lease-store.ts'
import { type LeasedDeployment, leasedDeploymentColumns } from './runner/leased-deployment.ts'
import type { DeployRequest } from './validate-deploy-input.ts'

export interface NewDeployment {
  id: string
  request: DeployRequest
  /** Equal for requests with the same input. */
  inputDigest: string
  contents: UnpackedContents
  /** The connection that the request came from. */
  origin: string | null
  requestedBy: Pick<Subject, 'id' | 'name'>
  audit: AuditEntry
  /** A runner with a free slot, which starts the deployment at once unless others are queued. */
  leaseHolder: LeaseHolder | null
}

/** A deployment that was started or queued. */
export interface StartResult {
  deployment: DeploymentSnapshot
  /** Leased to the given runner; null: queued. */
  leased: LeasedDeployment | null
}

/** The repository has another active deployment, or the idempotency key was used before. */
export class InUseError extends Error {
  override readonly name = 'InUseError'

  constructor(readonly resource: 'repository' | 'idempotency key') {
    super(`The ${resource} is in use.`)
  }
}

/** The state transitions that users cause, one function each, and the queries for deployments. */
@Injectable()
export class DeploymentStore {
  constructor(
    private readonly database: Database,
    private readonly log: EventLog,
  ) {}

  /**
   * Stores the deployment, its contents and its first event, in one transaction.
   * @throws InUseError
   */
  async accept(deployment: NewDeployment): Promise<StartResult> {
    const { id, request, contents, leaseHolder } = deployment
    const sizeBytes = request.contents.files.reduce((sum, file) => sum + file.content.byteLength, 0)
    const started = await this.start(() =>
      this.database.transaction(async (tx) => {
        // First, because it takes time: once the event is appended, other appends wait for this transaction.
        const packBytes = await insertContents(tx, id, contents.pack())
        await appendAuditEntry(tx, deployment.audit)
        return firstRow(tx, ACCEPT, [
          id,
          request.org,
          request.repo,
          request.visibility,
          request.description,
          request.branch,
          STEP_TEXTS.DEPLOY,
          QUEUED_TEXT,
          request.contents.files.length,
          sizeBytes,
          request.idempotencyKey,
          deployment.inputDigest,
          contents.commit,
          contents.tree,
          contents.objectCount,
          packBytes,
          leaseHolder?.name ?? null,
          leaseHolder?.leaseMs ?? null,
          deployment.origin,
          JSON.stringify(deployment.requestedBy),
          JSON.stringify(request.contents.warnings.messages),
          request.contents.warnings.count,
        ])
      }),
    )
    if (!started) throw new Error('The insert returned no row.')
    return started
  }

  /**
   * Resumes a failed or cancelled deployment after the last step reached. Undefined: it cannot be
   * retried in its current state.
   * @throws InUseError
   */
  async retry(
    id: string,
    leaseHolder: LeaseHolder | null,
    audit: AuditEntry,
  ): Promise<StartResult | undefined> {
    const values = [
      id,
      JSON.stringify(STEP_TEXTS),
      QUEUED_TEXT,
      leaseHolder?.name ?? null,
      leaseHolder?.leaseMs ?? null,
    ]
    return this.start(() => this.withAudit(audit, (tx) => firstRow(tx, RETRY, values)))
  }

  /** Cancels a queued or waiting deployment. Undefined: it is neither. */
  async cancelUnleased(id: string, audit: AuditEntry): Promise<DeploymentSnapshot | undefined> {
    const row = await this.log.append(() =>
      this.withAudit(audit, (tx) => firstRow(tx, CANCEL_UNLEASED, [id, CANCELLED_TEXT])),
    )
    return row?.deployment
  }

  /** Asks the runner of a deployment to stop. False: it is not running. */
  async requestCancel(id: string, audit: AuditEntry): Promise<boolean> {
    const requested = await this.withAudit(audit, async (tx) => {
      const [row] = await tx.query<{ id: string }>(
        `update deployments set cancel_requested = true where id = $1 and status = 'RUNNING' returning id`,
        [id],
      )
      return row
    })
    return requested !== undefined
  }

  /** When the contents were removed under RETENTION_DAYS; undefined: they are still stored. */
  async contentsRemovedAt(id: string): Promise<Date | undefined> {
    const [row] = await this.database.query<{ at: Date | null }>(
      'select contents_removed_at as at from deployments where id = $1',
      [id],
    )
    return row?.at ?? undefined
  }

  async find(id: string): Promise<DeploymentSnapshot | undefined> {
    return this.findWhere('d.id = $1', [id])
  }

  async findActive(org: string, repo: string): Promise<DeploymentSnapshot | undefined> {
    return this.findWhere(
      `lower(d.org) = lower($1 collate "C") and lower(d.repo) = lower($2 collate "C") and d.status in ('QUEUED', 'RUNNING', 'WAITING')`,
      [org, repo],
    )
  }

  async findByIdempotencyKey(
    subject: Pick<Subject, 'id'>,
    key: string,
  ): Promise<{ deployment: DeploymentSnapshot; inputDigest: string } | undefined> {
    const [row] = await this.database.query<{ deployment: DeploymentSnapshot; inputDigest: string }>(
      `select deployment_snapshot(d) as deployment, d.input_digest as "inputDigest"
       from deployments d where coalesce(d.requested_by ->> 'id', 'local') = $1 and d.idempotency_key = $2`,
      [subject.id, key],
    )
    return row
  }

  /** Newest first, at most `limit`, those older than `before`. */
  async list(page: {
    limit: number
    before: string | null
    sees: Organizations
    org: string | null
    repo: string | null
    statuses: readonly DeploymentStatus[] | null
  }): Promise<DeploymentSnapshot[]> {
    // Ids are UUIDs of version 7, so they sort by time of acceptance. Only requested conditions are included,
    // so that each combination can use its index.
    const values: unknown[] = [page.limit]
    const conditions: string[] = []
    const where = (condition: (parameter: string) => string, value: unknown) => {
      values.push(value)
      conditions.push(condition(`$${values.length}`))
    }
    if (page.before) where((p) => `d.id < ${p}`, page.before)
    if (page.sees !== 'all') where((p) => `lower(d.org) = any(${p})`, page.sees)
    if (page.org) where((p) => `lower(d.org) = lower(${p} collate "C")`, page.org)
    if (page.repo) where((p) => `lower(d.repo) = lower(${p} collate "C")`, page.repo)
    if (page.statuses) where((p) => `d.status = any(${p})`, page.statuses)
    const rows = await this.database.query<{ deployment: DeploymentSnapshot }>(
      `select deployment_snapshot(d) as deployment from deployments d
       ${conditions.length > 0 ? `where ${conditions.join(' and ')}` : ''} order by d.id desc limit $1`,
      values,
    )
    return rows.map((row) => row.deployment)
  }

  private async start(
    transition: () => Promise<LeasedDeploymentRow | undefined>,
  ): Promise<StartResult | undefined> {
    try {
      const row = await this.log.append(transition)
      return row && { deployment: row.deployment, leased: row.deployment.status === 'RUNNING' ? row : null }
    } catch (error) {
      throw toInUseError(error) ?? error
    }
  }

  /**
   * Stores the audit entry in the transition's transaction; rolls back both if the transition does not apply.
   */
  private async withAudit<Row>(
    audit: AuditEntry,
    transition: (tx: Queryable) => Promise<Row | undefined>,
  ): Promise<Row | undefined> {
    try {
      return await this.database.transaction(async (tx) => {
        // First: once the event is appended, all other appends wait.
        await appendAuditEntry(tx, audit)
        const row = await transition(tx)
        if (!row) throw new NotAppliedError()
        return row
      })
    } catch (error) {
      if (error instanceof NotAppliedError) return undefined
      throw error
    }
  }

  private async findWhere(
    condition: string,
    values: readonly unknown[],
  ): Promise<DeploymentSnapshot | undefined> {
    const [row] = await this.database.query<{ deployment: DeploymentSnapshot }>(
      `select deployment_snapshot(d) as deployment from deployments d where ${condition}`,
      values,
    )
    return row?.deployment
  }
}

/** Rolls back the audit entry of a transition that did not apply. */
class NotAppliedError extends Error {
  override readonly name = 'NotAppliedError'
}

async function firstRow(
  through: Queryable,
  sql: string,
  values: readonly unknown[],
): Promise<LeasedDeploymentRow | undefined> {
  const [row] = await through.query<LeasedDeploymentRow>(sql, values)
  return row
}

const UNIQUE_VIOLATION = '23505'

function toInUseError(error: unknown): InUseError | undefined {
  const { code, constraint } = error as { code?: unknown; constraint?: unknown }
  if (code !== UNIQUE_VIOLATION) return undefined
  if (constraint === 'deployments_active_repository') return new InUseError('repository')
  if (constraint === 'deployments_idempotency_key') return new InUseError('idempotency key')
  return undefined
}

// Starts at once if a runner is given and none is queued: then it never appears as queued.
const ACCEPT = `
  with here as (
    select $17::text is not null and not exists (select from deployments where status = 'QUEUED') as starts,
      next_queue_rank($2) as queue_rank, date_trunc('milliseconds', clock_timestamp()) as now
  ), accepted as (
    insert into deployments (
      id, org, repo, visibility, description, branch, step, status, text, sequence, attempt,
      file_count, size_bytes, created_at, updated_at, idempotency_key, input_digest,
      planned_commit, planned_tree, object_count, pack_bytes,
      run_at, queue_rank, leased_by, lease_expires_at, epoch, requested_by,
      warnings, warning_count
    )
    select
      $1, $2, $3, $4, $5, $6, 'DEPLOY', case when starts then 'RUNNING' else 'QUEUED' end,
      case when starts then $7 else $8 end, 1, 1,
      $9, $10, now, now, $11, $12,
      $13, $14, $15, $16,
      now, queue_rank, case when starts then $17 end, case when starts then now + $18 * interval '1 ms' end,
      case when starts then 1 else 0 end, $20::jsonb,
      $21::jsonb, $22
    from here
    returning *
  )
  select e.*, ${leasedDeploymentColumns('accepted')}
  from accepted, lateral append_event(row(accepted.*)::deployments, $19) e`

const RETRY = `
  with here as (
    select $4::text is not null and not exists (select from deployments where status = 'QUEUED') as starts,
      (select next_queue_rank(org) from deployments where id = $1) as queue_rank, clock_timestamp() as now
  ), moved as (
    update deployments d set
      status = case when starts then 'RUNNING' else 'QUEUED' end,
      text = case when starts then $2::jsonb ->> d.step else $3 end,
      attempt = attempt + 1, error = null, finished_at = null, cancel_requested = false, retry_count = 0,
      reclaim_count = 0, run_at = now, queue_rank = here.queue_rank, leased_by = case when starts then $4 end,
      lease_expires_at = case when starts then now + $5 * interval '1 ms' end, epoch = epoch + 1,
      sequence = sequence + 1, updated_at = now
    from here
    where d.id = $1 and d.status in ('FAILED', 'CANCELLED') and d.contents_removed_at is null
      and coalesce((d.error ->> 'retryable')::boolean, true)
    returning d.*
  )
  select e.*, ${leasedDeploymentColumns('moved')} from moved, lateral append_event(row(moved.*)::deployments, null) e`

const CANCEL_UNLEASED = `
  with moved as (
    update deployments set
      status = 'CANCELLED', text = $2, waiting_until = null, progress = null, epoch = epoch + 1,
      sequence = sequence + 1, updated_at = clock_timestamp(), finished_at = clock_timestamp()
    where id = $1 and status in ('QUEUED', 'WAITING')
    returning *
  )
  select e.*, ${leasedDeploymentColumns('moved')} from moved, lateral append_event(row(moved.*)::deployments, null) e`
