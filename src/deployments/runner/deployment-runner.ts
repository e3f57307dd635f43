import { randomUUID } from 'node:crypto'
import { hostname } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'
import { Injectable, Logger, type OnApplicationBootstrap, type OnModuleDestroy } from '@nestjs/common'
import { Config } from '../../config/config.ts'
import { Database } from '../../database/database.ts'
import { DatabaseUnavailable } from '../../database/database-errors.ts'
import type { DedicatedConnection } from '../../database/dedicated-connection.ts'
import { GitHubClient } from '../../github/github-client.ts'
import { storedContents } from '../contents/stored-contents.ts'
import { DeploymentMetrics } from './deployment-metrics.ts'
import { NEXT_STEP, type StepResult } from './deployment-steps.ts'
import type { Work } from './deployment-work.ts'
import { decide, MOST_TAKEOVERS, runnersDied } from './failure.ts'
import { LeaseStore, type Owner } from './lease-store.ts'
import { ProgressReport } from './progress-report.ts'
import { RunnerSignals } from './runner-signals.ts'

/** A backstop: whoever makes work says so at once. */
const POLL_MS = 1_000

/** In one transaction. */
const MOST_CLAIMED = 20

/** How long runs have to hand their leases back when the node stops. */
const STOP_GRACE_MS = 5_000

/** Why a run is to end before its deployment has. */
type EndReason = 'cancelled' | 'lease lost' | 'stopping'

class RunEnded extends Error {
  constructor(readonly reason: EndReason) {
    super(`The run has ended: ${reason}.`)
  }
}

interface Run {
  work: Work
  controller: AbortController
  ended: Promise<void>
  /** Aborts the run unless a heartbeat puts it off. */
  deadline: NodeJS.Timeout | undefined
}

/** Room for one deployment, kept for the caller until it starts one or gives the place back. */
export interface Place {
  owner: Owner
  start(work: Work): void
  giveBack(): void
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
  private readonly owner: Owner
  private readonly concurrency: number
  private readonly runs = new Map<string, Run>()
  private reserved = 0
  private filling: Promise<void> | undefined
  private fillAgain = false
  private beating = false
  private connection: DedicatedConnection | undefined
  private poll: NodeJS.Timeout | undefined
  private heartbeat: NodeJS.Timeout | undefined
  private stopListening: (() => void) | undefined
  private stopping = false
  private claimFailed = true

  constructor(
    config: Config,
    private readonly database: Database,
    private readonly store: LeaseStore,
    private readonly github: GitHubClient,
    private readonly metrics: DeploymentMetrics,
    private readonly signals: RunnerSignals,
  ) {
    this.owner = { name: `${hostname()}/${process.pid}/${randomUUID()}`, leaseMs: config.leaseMs }
    this.concurrency = config.deployConcurrency
  }

  async onApplicationBootstrap(): Promise<void> {
    this.stopListening = await this.signals.listen({
      onWork: () => {
        if (this.freePlaces > 0) this.wake()
      },
      onCancel: (id) => {
        if (id === undefined) void this.beat()
        else this.cancel(id)
      },
    })
    this.poll = setInterval(() => this.wake(), POLL_MS)
    this.heartbeat = setInterval(() => void this.beat(), this.owner.leaseMs / 3)
    this.wake()
  }

  async onModuleDestroy(): Promise<void> {
    this.stopping = true
    clearInterval(this.poll)
    this.stopListening?.()
    await this.filling
    // A call that is deaf to its signal is left behind; its lease runs out.
    await Promise.race([this.endRuns(), sleep(STOP_GRACE_MS, undefined, { ref: false })])
    clearInterval(this.heartbeat)
    await this.connection?.close()
  }

  /** One that is being accepted may still be started, and is handed back then: see `start`. */
  private async endRuns(): Promise<void> {
    while (this.runs.size > 0) {
      const runs = [...this.runs.values()]
      for (const run of runs) run.controller.abort(new RunEnded('stopping'))
      await Promise.all(runs.map((run) => run.ended))
    }
  }

  /** Whether the last look for work succeeded; if not, nothing queued is started here. */
  get isClaiming(): boolean {
    return !this.claimFailed && !this.stopping
  }

  /** A place for a deployment that is about to be accepted, if one is free. */
  offer(): Place | null {
    if (this.freePlaces <= 0) return null
    this.reserved++
    let open = true
    const close = () => {
      if (open) this.reserved--
      open = false
    }
    return {
      owner: this.owner,
      start: (work) => {
        close()
        this.start(work)
      },
      giveBack: close,
    }
  }

  /** Looks for work; to be called when there may be some. */
  wake(): void {
    if (this.stopping) return
    if (this.filling) {
      this.fillAgain = true
      return
    }
    this.filling = this.fill().finally(() => {
      this.filling = undefined
      if (this.fillAgain) {
        this.fillAgain = false
        this.wake()
      }
    })
  }

  private get freePlaces(): number {
    return this.stopping ? 0 : this.concurrency - this.runs.size - this.reserved
  }

  /** Stops the run of a deployment if it is one of this node's. */
  private cancel(id: string): void {
    this.runs.get(id)?.controller.abort(new RunEnded('cancelled'))
  }

  private async fill(): Promise<void> {
    try {
      while (await this.take(1, () => this.store.takeOver(this.owner)));
      // Once one was queued, whoever comes now is queued behind it: all places may be kept for those that are.
      let most = 1
      while (await this.take(most, (places) => this.store.claimNext(this.owner, places))) most = MOST_CLAIMED
      if (this.freePlaces <= 0 && !this.stopping) {
        while (await this.store.requeueExpired(this.owner));
      }
      this.claimFailed = false
    } catch (error) {
      if (!this.claimFailed) this.logger.error('Cannot look for deployments to run; trying again', { error })
      this.claimFailed = true
    }
  }

  /** Starts what is found for the places that are free, at most so many. True: there may be more. */
  private async take(most: number, find: (places: number) => Promise<Work[]>): Promise<boolean> {
    const places = Math.min(most, this.freePlaces)
    if (places <= 0) return false
    let found: Work[]
    this.reserved += places
    try {
      found = await find(places)
    } finally {
      this.reserved -= places
    }
    for (const work of found) this.start(work)
    return found.length === places
  }

  private start(work: Work): void {
    // A lease that this node itself has lost and taken again.
    this.runs.get(work.id)?.controller.abort(new RunEnded('lease lost'))
    const controller = new AbortController()
    const run: Run = { work, controller, deadline: undefined, ended: Promise.resolve() }
    this.runs.set(work.id, run)
    this.putOff(run, performance.now())
    if (this.stopping) controller.abort(new RunEnded('stopping'))
    run.ended = this.run(work, controller.signal).finally(() => {
      clearTimeout(run.deadline)
      if (this.runs.get(work.id) === run) this.runs.delete(work.id)
      this.wake()
    })
  }

  /** A run ends before its lease does, which is the database's and began a moment before `since`, or after it. */
  private putOff(run: Run, since: number): void {
    clearTimeout(run.deadline)
    if (this.runs.get(run.work.id) !== run) return
    const leftMs = since + (this.owner.leaseMs * 5) / 6 - performance.now()
    run.deadline = setTimeout(() => run.controller.abort(new RunEnded('lease lost')), leftMs)
  }

  /** Never rejects. */
  private async run(work: Work, signal: AbortSignal): Promise<void> {
    let reached = work
    try {
      if (work.cancelRequested) throw new RunEnded('cancelled')
      if (work.takeovers > MOST_TAKEOVERS) {
        const { text, problem } = runnersDied(work)
        hold(await this.store.fail(work, text, problem))
        return
      }
      while (reached.step !== 'DONE') {
        signal.throwIfAborted()
        const startedAt = performance.now()
        const result = await this.takeStep(reached, signal)
        const moved = result.step === 'DONE' ? this.store.finish(work) : this.store.advance(reached, result)
        hold(await moved)
        reached = {
          ...reached,
          step: result.step,
          tries: 0,
          repositoryId: result.repository?.id ?? reached.repositoryId,
        }
        const ms = Math.round(performance.now() - startedAt)
        this.metrics.stepSeconds.observe({ step: result.step }, ms / 1000)
        this.logger.log('Step done', { deployment: work.id, step: result.step, ms })
      }
    } catch (error) {
      await this.settle(reached, signal.aborted ? signal.reason : error)
    }
  }

  private async takeStep(work: Work, signal: AbortSignal): Promise<StepResult> {
    if (work.step === 'DONE') throw new Error('A deployment that is done has no next step.')
    const progress = new ProgressReport(work, (value) => this.store.reportProgress(work, value))
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
  private async settle(work: Work, error: unknown): Promise<void> {
    const details = { deployment: work.id, reached: work.step }
    try {
      if (error instanceof RunEnded) {
        this.logger.log(`Run ended: ${error.reason}`, details)
        if (error.reason === 'cancelled') await this.store.cancel(work)
        if (error.reason === 'stopping') {
          await this.store.handBack(work)
          await this.signals.tellOfWork()
        }
      } else if (error instanceof DatabaseUnavailable) {
        this.logger.warn('The database is away; the deployment goes on when it is back', {
          ...details,
          error,
        })
      } else {
        await this.settleFailure(work, error)
      }
    } catch (failure) {
      this.logger.warn('Could not store how a run ended; its lease will run out', {
        ...details,
        error: failure,
      })
    }
  }

  private async settleFailure(work: Work, error: unknown): Promise<void> {
    const logId = randomUUID()
    const decision = decide(error, work, logId)
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
  private async beat(): Promise<void> {
    if (this.beating || this.runs.size === 0) return
    this.beating = true
    try {
      const runs = [...this.runs.values()]
      const sentAt = performance.now()
      this.connection ??= this.database.dedicated(this.owner.leaseMs)
      const ids = runs.map(({ work }) => work.id)
      const beats = await this.store.heartbeat(this.owner, ids, this.connection)
      const held = new Map(beats.map((beat) => [beat.id, beat]))
      for (const run of runs) {
        const beat = held.get(run.work.id)
        if (!beat || beat.epoch !== run.work.epoch) run.controller.abort(new RunEnded('lease lost'))
        else if (beat.cancelRequested) run.controller.abort(new RunEnded('cancelled'))
        else this.putOff(run, sentAt)
      }
    } catch (error) {
      this.logger.warn('Could not renew leases', { error })
    } finally {
      this.beating = false
    }
  }
}

/** A write that did not apply: another runner has the deployment, or it was ended. */
function hold(applied: boolean): void {
  if (!applied) throw new RunEnded('lease lost')
}
