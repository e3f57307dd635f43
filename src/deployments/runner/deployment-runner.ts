import { randomUUID } from 'node:crypto'
import { hostname } from 'node:os'
import { Injectable, Logger, type OnApplicationBootstrap, type OnModuleDestroy } from '@nestjs/common'
import { Config } from '../../config/config.ts'
import { Database } from '../../database/database.ts'
import type { DedicatedConnection } from '../../database/dedicated-connection.ts'
import { DatabaseUnavailableError } from '../../database/errors.ts'
import { GitHubClient } from '../../github/github-client.ts'
import { CoalescedTask } from '../../runtime/coalesced-task.ts'
import { withTimeout } from '../../runtime/with-timeout.ts'
import { storedContents } from '../contents/stored-contents.ts'
import { DeploymentMetrics } from './deployment-metrics.ts'
import { NEXT_STEP, type StepResult } from './deployment-steps.ts'
import { type LeaseHolder, LeaseStore } from './lease-store.ts'
import type { LeasedDeployment } from './leased-deployment.ts'
import { ProgressReporter } from './progress-reporter.ts'
import { assertReclaimsWithinLimit, decideRetry } from './retry-policy.ts'
import { RunnerSignals } from './runner-signals.ts'

/** A fallback: normally, a signal announces new work. */
const POLL_INTERVAL_MS = 1_000

/** Per transaction. */
const MAX_CLAIM_BATCH = 20

/** How long runs have to release their leases when the node stops. */
const STOP_GRACE_MS = 5_000

/** Why a run ends before its deployment does. */
type EndReason = 'cancelled' | 'lease lost' | 'stopping'

class RunEndedError extends Error {
  override readonly name = 'RunEndedError'

  constructor(readonly reason: EndReason) {
    super(`The run has ended: ${reason}.`)
  }
}

interface Run {
  /** As of the last step reached. */
  deployment: LeasedDeployment
  controller: AbortController
  ended: Promise<void>
  /** Aborts the run unless a heartbeat extends it. */
  leaseDeadline: NodeJS.Timeout | undefined
}

/** Room for one deployment, reserved until the caller starts a run in it or releases it. */
interface Slot {
  leaseHolder: LeaseHolder
  startRun(deployment: LeasedDeployment): void
  release(): void
}

/**
 * Runs deployments, at most `DEPLOY_CONCURRENCY` at once, each under a lease.
 *
 *   reserve slot ──> accepted and started in one transaction
 *   claim        ──> a deployment that is queued, due again, or left by a node that died
 *   heartbeat    ──> renews the leases; reports cancellations; a lost lease aborts its run
 *   signal       ──> new work or a cancellation on another node: acts at once
 *   stop         ──> aborts the runs, releases their leases, and signals that work is available
 */
@Injectable()
export class DeploymentRunner implements OnApplicationBootstrap, OnModuleDestroy {
  private readonly logger = new Logger(DeploymentRunner.name)
  private readonly leaseHolder: LeaseHolder
  private readonly concurrency: number
  private readonly runs = new Map<string, Run>()
  private reservedSlots = 0
  private readonly claiming = new CoalescedTask(
    () => this.claimWork(),
    (error) => this.recordClaimFailure(error),
  )
  private lastClaimFailed = true
  private isRenewing = false
  private heartbeatConnection: DedicatedConnection | undefined
  private pollTimer: NodeJS.Timeout | undefined
  private heartbeatTimer: NodeJS.Timeout | undefined
  private stopListening: (() => void) | undefined
  private isStopping = false

  constructor(
    config: Config,
    private readonly database: Database,
    private readonly store: LeaseStore,
    private readonly github: GitHubClient,
    private readonly metrics: DeploymentMetrics,
    private readonly signals: RunnerSignals,
  ) {
    this.leaseHolder = { name: `${hostname()}/${process.pid}/${randomUUID()}`, leaseMs: config.leaseMs }
    this.concurrency = config.deployConcurrency
  }

  async onApplicationBootstrap(): Promise<void> {
    this.stopListening = await this.signals.listen({
      onWorkAvailable: () => {
        if (this.freeSlots > 0) this.pollNow()
      },
      onCancel: (id) => {
        if (id === undefined) void this.renewLeases()
        else this.cancelRun(id)
      },
    })
    this.pollTimer = setInterval(() => this.pollNow(), POLL_INTERVAL_MS)
    this.heartbeatTimer = setInterval(() => void this.renewLeases(), this.leaseHolder.leaseMs / 3)
    this.pollNow()
  }

  async onModuleDestroy(): Promise<void> {
    this.isStopping = true
    clearInterval(this.pollTimer)
    this.stopListening?.()
    await this.claiming.idle()
    // A call that ignores its signal is left behind; its lease expires.
    await withTimeout(this.abortRuns(), STOP_GRACE_MS, undefined)
    clearInterval(this.heartbeatTimer)
    await this.heartbeatConnection?.close()
  }

  /** Whether the last claim succeeded; if not, this node starts nothing that is queued. */
  get isClaiming(): boolean {
    return !this.lastClaimFailed && !this.isStopping
  }

  /** A slot for a deployment about to be accepted, if one is free. */
  reserveSlot(): Slot | null {
    if (this.freeSlots <= 0) return null
    this.reservedSlots++
    let isReserved = true
    const release = () => {
      if (isReserved) this.reservedSlots--
      isReserved = false
    }
    return {
      leaseHolder: this.leaseHolder,
      startRun: (deployment) => {
        release()
        this.startRun(deployment)
      },
      release,
    }
  }

  /** Claims work now instead of at the next poll. */
  pollNow(): void {
    if (!this.isStopping) this.claiming.run()
  }

  private get freeSlots(): number {
    return this.isStopping ? 0 : this.concurrency - this.runs.size - this.reservedSlots
  }

  private async claimWork(): Promise<void> {
    while (await this.claim(1, () => this.store.reclaimExpired(this.leaseHolder)));
    // First only one: while a deployment is queued, new ones queue behind it, so from then on every free slot
    // can be reserved for the queue.
    let limit = 1
    while (await this.claim(limit, (slots) => this.store.claimNext(this.leaseHolder, slots)))
      limit = MAX_CLAIM_BATCH
    if (this.freeSlots <= 0 && !this.isStopping) {
      while (await this.store.requeueExpired(this.leaseHolder));
    }
    this.lastClaimFailed = false
  }

  private recordClaimFailure(error: unknown): void {
    if (!this.lastClaimFailed) this.logger.error('Could not claim deployments; retrying', { error })
    this.lastClaimFailed = true
  }

  /** Claims and starts at most `limit` deployments, as slots allow. True: there may be more. */
  private async claim(
    limit: number,
    claimUpTo: (slots: number) => Promise<LeasedDeployment[]>,
  ): Promise<boolean> {
    const slots = Math.min(limit, this.freeSlots)
    if (slots <= 0) return false
    let claimed: LeasedDeployment[]
    this.reservedSlots += slots
    try {
      claimed = await claimUpTo(slots)
    } finally {
      this.reservedSlots -= slots
    }
    for (const deployment of claimed) this.startRun(deployment)
    return claimed.length === slots
  }

  private startRun(deployment: LeasedDeployment): void {
    // This node may have lost the lease and reclaimed it.
    this.runs.get(deployment.id)?.controller.abort(new RunEndedError('lease lost'))
    const controller = new AbortController()
    const run: Run = { deployment, controller, leaseDeadline: undefined, ended: Promise.resolve() }
    this.runs.set(deployment.id, run)
    this.extendDeadline(run, performance.now())
    if (this.isStopping) controller.abort(new RunEndedError('stopping'))
    run.ended = this.run(run).finally(() => {
      clearTimeout(run.leaseDeadline)
      if (this.runs.get(deployment.id) === run) this.runs.delete(deployment.id)
      this.pollNow()
    })
  }

  /** Never rejects. */
  private async run(run: Run): Promise<void> {
    const { signal } = run.controller
    try {
      await this.runSteps(run)
    } catch (error) {
      await this.recordOutcome(run.deployment, signal.aborted ? signal.reason : error)
    }
  }

  private async runSteps(run: Run): Promise<void> {
    const { signal } = run.controller
    if (run.deployment.cancelRequested) throw new RunEndedError('cancelled')
    assertReclaimsWithinLimit(run.deployment)
    while (run.deployment.step !== 'DONE') {
      signal.throwIfAborted()
      const startedAt = performance.now()
      const result = await this.runStep(run.deployment, signal)
      await this.storeResult(run.deployment, result)
      run.deployment = {
        ...run.deployment,
        step: result.step,
        retryCount: 0,
        repositoryId: result.repository?.id ?? run.deployment.repositoryId,
      }
      const durationMs = Math.round(performance.now() - startedAt)
      this.metrics.stepSeconds.observe({ step: result.step }, durationMs / 1000)
      this.logger.log('Step done', { deployment: run.deployment.id, step: result.step, ms: durationMs })
    }
  }

  private async runStep(deployment: LeasedDeployment, signal: AbortSignal): Promise<StepResult> {
    if (deployment.step === 'DONE') throw new Error('A finished deployment has no next step.')
    const reporter = new ProgressReporter(deployment, (progress) =>
      this.store.reportProgress(deployment, progress),
    )
    try {
      return await NEXT_STEP[deployment.step](deployment, {
        github: this.github,
        contents: storedContents(this.database, deployment),
        signal,
        onProgress: (progress) => reporter.report(progress),
      })
    } finally {
      // The last progress event precedes the step's own event.
      await reporter.end()
    }
  }

  private async storeResult(deployment: LeasedDeployment, result: StepResult): Promise<void> {
    const isApplied =
      result.step === 'DONE'
        ? await this.store.finish(deployment)
        : await this.store.advance(deployment, result)
    // Not applied: another runner holds the lease, or the deployment has ended.
    if (!isApplied) throw new RunEndedError('lease lost')
  }

  /** Stores why a run ended early. If even that fails, the lease expires and another runner takes over. */
  private async recordOutcome(deployment: LeasedDeployment, error: unknown): Promise<void> {
    const details = { deployment: deployment.id, lastStep: deployment.step }
    try {
      if (error instanceof RunEndedError) {
        this.logger.log('Run ended early', { ...details, reason: error.reason })
        await this.recordEnd(deployment, error.reason)
      } else if (error instanceof DatabaseUnavailableError) {
        this.logger.warn('Database unavailable; the run resumes once it is back', { ...details, error })
      } else {
        await this.recordFailure(deployment, error)
      }
    } catch (failure) {
      this.logger.warn('Could not store the outcome of a run; its lease will expire', {
        ...details,
        error: failure,
      })
    }
  }

  private async recordEnd(deployment: LeasedDeployment, reason: EndReason): Promise<void> {
    if (reason === 'cancelled') {
      await this.store.cancel(deployment)
    } else if (reason === 'stopping') {
      await this.store.release(deployment)
      await this.signals.notifyWorkAvailable()
    }
  }

  private async recordFailure(deployment: LeasedDeployment, error: unknown): Promise<void> {
    const logId = randomUUID()
    const decision = decideRetry(error, deployment, logId)
    const { outcome, text, problem } = decision
    this.logger.warn('Step failed', {
      deployment: deployment.id,
      step: problem.step,
      code: problem.code,
      outcome,
      logId,
      error,
    })
    if (outcome === 'fail') {
      await this.store.fail(deployment, text, problem)
      return
    }
    const isWaiting = await this.store[outcome](deployment, decision.delayMs, text, problem)
    // Not applied: a cancellation was requested meanwhile, or the lease is lost and
    // cancelling has no effect either.
    if (!isWaiting) await this.store.cancel(deployment)
  }

  private cancelRun(id: string): void {
    this.runs.get(id)?.controller.abort(new RunEndedError('cancelled'))
  }

  /** Heartbeat: renews the leases of all runs and extends their deadlines. */
  private async renewLeases(): Promise<void> {
    if (this.isRenewing || this.runs.size === 0) return
    this.isRenewing = true
    try {
      const runs = [...this.runs.values()]
      const sentAtMs = performance.now()
      this.heartbeatConnection ??= this.database.openDedicatedConnection(this.leaseHolder.leaseMs)
      const ids = runs.map(({ deployment }) => deployment.id)
      const renewed = await this.store.renewLeases(this.leaseHolder, ids, this.heartbeatConnection)
      const renewedById = new Map(renewed.map((lease) => [lease.id, lease]))
      for (const run of runs) {
        const lease = renewedById.get(run.deployment.id)
        if (lease?.epoch !== run.deployment.epoch) run.controller.abort(new RunEndedError('lease lost'))
        else if (lease.cancelRequested) run.controller.abort(new RunEndedError('cancelled'))
        else this.extendDeadline(run, sentAtMs)
      }
    } catch (error) {
      this.logger.warn('Could not renew leases', { error })
    } finally {
      this.isRenewing = false
    }
  }

  /**
   * The deadline is earlier than the end of the lease, which the database counts from
   * `sinceMs` or slightly later.
   */
  private extendDeadline(run: Run, sinceMs: number): void {
    clearTimeout(run.leaseDeadline)
    if (this.runs.get(run.deployment.id) !== run) return
    const remainingMs = sinceMs + (this.leaseHolder.leaseMs * 5) / 6 - performance.now()
    run.leaseDeadline = setTimeout(() => run.controller.abort(new RunEndedError('lease lost')), remainingMs)
  }

  /** A deployment accepted meanwhile may still start, and is released at once: see `startRun`. */
  private async abortRuns(): Promise<void> {
    while (this.runs.size > 0) {
      const runs = [...this.runs.values()]
      for (const run of runs) run.controller.abort(new RunEndedError('stopping'))
      await Promise.all(runs.map((run) => run.ended))
    }
  }
}
