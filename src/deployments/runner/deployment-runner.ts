import { randomUUID } from 'node:crypto'
import { hostname } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'
import { Injectable, Logger, type OnApplicationBootstrap, type OnModuleDestroy } from '@nestjs/common'
import { Config } from '../../config/config.ts'
import { Database } from '../../database/database.ts'
import type { DedicatedConnection } from '../../database/dedicated-connection.ts'
import { DatabaseUnavailableError } from '../../database/errors.ts'
import { GitHubClient } from '../../github/github-client.ts'
import { storedContents } from '../contents/stored-contents.ts'
import { DeploymentMetrics } from './deployment-metrics.ts'
import { NEXT_STEP, type StepResult } from './deployment-steps.ts'
import { type LeaseHolder, LeaseStore } from './lease-store.ts'
import type { LeasedDeployment } from './leased-deployment.ts'
import { ProgressReporter } from './progress-reporter.ts'
import { decideRetry, MAX_RECLAIMS, tooManyReclaims } from './retry-policy.ts'
import { RunnerSignals } from './runner-signals.ts'

/** A backstop: whoever makes work says so at once. */
const POLL_INTERVAL_MS = 1_000

/** In one transaction. */
const MAX_CLAIM_BATCH = 20

/** How long runs have to hand their leases back when the node stops. */
const STOP_GRACE_MS = 5_000

/** Why a run is to end before its deployment has. */
type EndReason = 'cancelled' | 'lease lost' | 'stopping'

class RunEndedError extends Error {
  constructor(readonly reason: EndReason) {
    super(`The run has ended: ${reason}.`)
  }
}

interface Run {
  deployment: LeasedDeployment
  controller: AbortController
  ended: Promise<void>
  /** Aborts the run unless a heartbeat puts it off. */
  leaseDeadline: NodeJS.Timeout | undefined
}

/** Room for one deployment, kept for the caller until it starts one or gives the place back. */
export interface Slot {
  leaseHolder: LeaseHolder
  startRun(work: LeasedDeployment): void
  release(): void
}

/**
 * Runs deployments, at most `DEPLOY_CONCURRENCY` at once, each under a lease.
 *
 *   offer a place ──> accepted and started in one transaction
 *   claim         ──> queued, due again, or left behind by a node that died
 *   heartbeat     ──> keeps the leases; learns of cancellations; a lease that is lost aborts the run
 *   signal        ──> another node has work, or a cancellation: looks at once
 *   stop          ──> aborts the runs, hands their leases back, and says so
 */
@Injectable()
export class DeploymentRunner implements OnApplicationBootstrap, OnModuleDestroy {
  private readonly logger = new Logger(DeploymentRunner.name)
  private readonly leaseHolder: LeaseHolder
  private readonly concurrency: number
  private readonly runs = new Map<string, Run>()
  private reservedSlots = 0
  private claiming: Promise<void> | undefined
  private claimAgain = false
  private isRenewing = false
  private connection: DedicatedConnection | undefined
  private pollTimer: NodeJS.Timeout | undefined
  private heartbeatTimer: NodeJS.Timeout | undefined
  private stopListening: (() => void) | undefined
  private isStopping = false
  private lastClaimFailed = true

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
    await this.claiming
    // A call that is deaf to its signal is left behind; its lease runs out.
    await Promise.race([this.abortRuns(), sleep(STOP_GRACE_MS, undefined, { ref: false })])
    clearInterval(this.heartbeatTimer)
    await this.connection?.close()
  }

  /** One that is being accepted may still be started, and is handed back then: see `start`. */
  private async abortRuns(): Promise<void> {
    while (this.runs.size > 0) {
      const runs = [...this.runs.values()]
      for (const run of runs) run.controller.abort(new RunEndedError('stopping'))
      await Promise.all(runs.map((run) => run.ended))
    }
  }

  /** Whether the last look for work succeeded; if not, nothing queued is started here. */
  get isClaiming(): boolean {
    return !this.lastClaimFailed && !this.isStopping
  }

  /** A place for a deployment that is about to be accepted, if one is free. */
  reserveSlot(): Slot | null {
    if (this.freeSlots <= 0) return null
    this.reservedSlots++
    let open = true
    const close = () => {
      if (open) this.reservedSlots--
      open = false
    }
    return {
      leaseHolder: this.leaseHolder,
      startRun: (work) => {
        close()
        this.start(work)
      },
      release: close,
    }
  }

  /** Looks for work; to be called when there may be some. */
  pollNow(): void {
    if (this.isStopping) return
    if (this.claiming) {
      this.claimAgain = true
      return
    }
    this.claiming = this.claimWork().finally(() => {
      this.claiming = undefined
      if (this.claimAgain) {
        this.claimAgain = false
        this.pollNow()
      }
    })
  }

  private get freeSlots(): number {
    return this.isStopping ? 0 : this.concurrency - this.runs.size - this.reservedSlots
  }

  /** Stops the run of a deployment if it is one of this node's. */
  private cancelRun(id: string): void {
    this.runs.get(id)?.controller.abort(new RunEndedError('cancelled'))
  }

  private async claimWork(): Promise<void> {
    try {
      while (await this.claim(1, () => this.store.reclaimExpired(this.leaseHolder)));
      // Once one was queued, whoever comes now is queued behind it: all places may be kept for those that are.
      let most = 1
      while (await this.claim(most, (places) => this.store.claimNext(this.leaseHolder, places)))
        most = MAX_CLAIM_BATCH
      if (this.freeSlots <= 0 && !this.isStopping) {
        while (await this.store.requeueExpired(this.leaseHolder));
      }
      this.lastClaimFailed = false
    } catch (error) {
      if (!this.lastClaimFailed)
        this.logger.error('Cannot look for deployments to run; trying again', { error })
      this.lastClaimFailed = true
    }
  }

  /** Starts what is found for the places that are free, at most so many. True: there may be more. */
  private async claim(most: number, find: (places: number) => Promise<LeasedDeployment[]>): Promise<boolean> {
    const places = Math.min(most, this.freeSlots)
    if (places <= 0) return false
    let found: LeasedDeployment[]
    this.reservedSlots += places
    try {
      found = await find(places)
    } finally {
      this.reservedSlots -= places
    }
    for (const work of found) this.start(work)
    return found.length === places
  }

  private start(work: LeasedDeployment): void {
    // A lease that this node itself has lost and taken again.
    this.runs.get(work.id)?.controller.abort(new RunEndedError('lease lost'))
    const controller = new AbortController()
    const run: Run = { deployment: work, controller, leaseDeadline: undefined, ended: Promise.resolve() }
    this.runs.set(work.id, run)
    this.extendDeadline(run, performance.now())
    if (this.isStopping) controller.abort(new RunEndedError('stopping'))
    run.ended = this.run(work, controller.signal).finally(() => {
      clearTimeout(run.leaseDeadline)
      if (this.runs.get(work.id) === run) this.runs.delete(work.id)
      this.pollNow()
    })
  }

  /** A run ends before its lease does, which is the database's and began a moment before `since`, or after it. */
  private extendDeadline(run: Run, since: number): void {
    clearTimeout(run.leaseDeadline)
    if (this.runs.get(run.deployment.id) !== run) return
    const leftMs = since + (this.leaseHolder.leaseMs * 5) / 6 - performance.now()
    run.leaseDeadline = setTimeout(() => run.controller.abort(new RunEndedError('lease lost')), leftMs)
  }

  /** Never rejects. */
  private async run(work: LeasedDeployment, signal: AbortSignal): Promise<void> {
    let reached = work
    try {
      if (work.cancelRequested) throw new RunEndedError('cancelled')
      if (work.reclaimCount > MAX_RECLAIMS) {
        const { text, problem } = tooManyReclaims(work)
        assertLeaseHeld(await this.store.fail(work, text, problem))
        return
      }
      while (reached.step !== 'DONE') {
        signal.throwIfAborted()
        const startedAt = performance.now()
        const result = await this.runStep(reached, signal)
        const moved = result.step === 'DONE' ? this.store.finish(work) : this.store.advance(reached, result)
        assertLeaseHeld(await moved)
        reached = {
          ...reached,
          step: result.step,
          retryCount: 0,
          repositoryId: result.repository?.id ?? reached.repositoryId,
        }
        const ms = Math.round(performance.now() - startedAt)
        this.metrics.stepSeconds.observe({ step: result.step }, ms / 1000)
        this.logger.log('Step done', { deployment: work.id, step: result.step, ms })
      }
    } catch (error) {
      await this.recordOutcome(reached, signal.aborted ? signal.reason : error)
    }
  }

  private async runStep(work: LeasedDeployment, signal: AbortSignal): Promise<StepResult> {
    if (work.step === 'DONE') throw new Error('A deployment that is done has no next step.')
    const progress = new ProgressReporter(work, (value) => this.store.reportProgress(work, value))
    try {
      return await NEXT_STEP[work.step](work, {
        github: this.github,
        contents: storedContents(this.database, work),
        signal,
        onProgress: (value) => progress.report(value),
      })
    } finally {
      // Whatever is told of the progress comes before what is told of the step.
      await progress.end()
    }
  }

  /** Stores why a run ended early. Where even that fails, the lease runs out and another runner finds the deployment. */
  private async recordOutcome(work: LeasedDeployment, error: unknown): Promise<void> {
    const details = { deployment: work.id, reached: work.step }
    try {
      if (error instanceof RunEndedError) {
        this.logger.log(`Run ended: ${error.reason}`, details)
        if (error.reason === 'cancelled') await this.store.cancel(work)
        if (error.reason === 'stopping') {
          await this.store.release(work)
          await this.signals.notifyWorkAvailable()
        }
      } else if (error instanceof DatabaseUnavailableError) {
        this.logger.warn('The database is away; the deployment goes on when it is back', {
          ...details,
          error,
        })
      } else {
        await this.recordFailure(work, error)
      }
    } catch (failure) {
      this.logger.warn('Could not store how a run ended; its lease will run out', {
        ...details,
        error: failure,
      })
    }
  }

  private async recordFailure(work: LeasedDeployment, error: unknown): Promise<void> {
    const logId = randomUUID()
    const decision = decideRetry(error, work, logId)
    this.logger.warn(`Step failed: ${decision.problem.code}`, {
      deployment: work.id,
      step: decision.problem.step,
      outcome: decision.outcome,
      logId,
      error,
    })
    if (decision.outcome === 'fail') {
      await this.store.fail(work, decision.text, decision.problem)
      return
    }
    const { outcome, delayMs, text, problem } = decision
    const waits = await this.store[outcome](work, delayMs, text, problem)
    // Somebody asked to cancel in the meantime, or the lease is lost: then neither applies.
    if (!waits) await this.store.cancel(work)
  }

  /** Renews the leases of all runs, and puts their deadlines off. */
  private async renewLeases(): Promise<void> {
    if (this.isRenewing || this.runs.size === 0) return
    this.isRenewing = true
    try {
      const runs = [...this.runs.values()]
      const sentAt = performance.now()
      this.connection ??= this.database.openDedicatedConnection(this.leaseHolder.leaseMs)
      const ids = runs.map(({ deployment: work }) => work.id)
      const beats = await this.store.renewLeases(this.leaseHolder, ids, this.connection)
      const held = new Map(beats.map((beat) => [beat.id, beat]))
      for (const run of runs) {
        const beat = held.get(run.deployment.id)
        if (!beat || beat.epoch !== run.deployment.epoch)
          run.controller.abort(new RunEndedError('lease lost'))
        else if (beat.cancelRequested) run.controller.abort(new RunEndedError('cancelled'))
        else this.extendDeadline(run, sentAt)
      }
    } catch (error) {
      this.logger.warn('Could not renew leases', { error })
    } finally {
      this.isRenewing = false
    }
  }
}

/** A write that did not apply: another runner has the deployment, or it was ended. */
function assertLeaseHeld(applied: boolean): void {
  if (!applied) throw new RunEndedError('lease lost')
}
