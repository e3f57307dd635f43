import { createHash } from 'node:crypto'
import { Injectable, Logger } from '@nestjs/common'
import { validate as isUuid, v7 as uuidv7 } from 'uuid'
import { type AuditAction, type AuditEntry, appendAuditEntry } from '../auth/audit-log.ts'
import { RateLimiter } from '../auth/rate-limiter.ts'
import { originOf, type RequestContext } from '../auth/request-context.ts'
import { canManage, includesOrg, type Organizations, type Subject } from '../auth/rights.ts'
import { Database } from '../database/database.ts'
import { DatabaseUnavailableError } from '../database/errors.ts'
import {
  ConflictError,
  type ErrorCode,
  ForbiddenError,
  NotFoundError,
  quote,
  ShipcastError,
} from '../errors.ts'
import type { DeploymentSnapshot, DeploymentStatus } from '../events/deployment-event.ts'
import { EventFeed } from '../events/event-feed.ts'
import { prepareContents, type UnpackedContents } from '../github/git/commit-pack.ts'
import { TemplateCatalog } from '../templates/template-catalog.ts'
import { withTrailer } from './contents/commit-message.ts'
import type { DeployInput, DeployRequest } from './deploy-input.ts'
import { DeploymentStore, InUseError, type NewDeployment, type StartResult } from './deployment-store.ts'
import { isFinished } from './deployment-texts.ts'
import { DeploymentRunner } from './runner/deployment-runner.ts'
import { RunnerSignals } from './runner/runner-signals.ts'
import { validateDeployInput } from './validate-deploy-input.ts'

const AUTHOR = { name: 'Shipcast', email: 'shipcast@users.noreply.github.com' }
/** What was in the way may be gone when we look at it; then it is tried again, this often. */
const MAX_ACCEPT_ATTEMPTS = 3
/** It may be taken up, or begin to wait, between two looks at it; then it is looked at again, this often. */
const MAX_CANCEL_ATTEMPTS = 5
/** The runner, here or on another node, is told at once, and in the worst case by its heartbeat; the answer waits this long. */
const CANCEL_WAIT_MS = 5_000

/** What people can do to deployments. Decides; does not speak GraphQL, and leaves the steps to the runner. */
@Injectable()
export class DeploymentService {
  private readonly logger = new Logger(DeploymentService.name)

  constructor(
    private readonly store: DeploymentStore,
    private readonly runner: DeploymentRunner,
    private readonly templates: TemplateCatalog,
    private readonly feed: EventFeed,
    private readonly signals: RunnerSignals,
    private readonly database: Database,
    private readonly rateLimiter: RateLimiter,
  ) {}

  /**
   * Accepts a deployment: stored with its contents and its first event, and started where there is room.
   * @throws BadUserInput, Conflict, Forbidden, RateLimited
   */
  async deploy(input: DeployInput, context: RequestContext): Promise<DeploymentSnapshot> {
    return this.runMutation('DEPLOY', `${input.org}/${input.repo}`, context, (audit) =>
      this.checkAndAccept(input, context, audit),
    )
  }

  private async checkAndAccept(
    input: DeployInput,
    context: RequestContext,
    audit: AuditEntry,
  ): Promise<DeploymentSnapshot> {
    const { subject, signal } = context
    if (!includesOrg(subject.rights.deploysTo, input.org)) throw deployForbidden(subject, input.org)
    const request = await validateDeployInput(input, { templates: this.templates, signal })
    const id = uuidv7()
    const { files } = request.contents
    const parties = [subject.id, `org:${request.org.toLowerCase()}`]
    return prepareContents(files, commitPlan(id, request), { signal, parties }, (contents) =>
      this.accept({
        id,
        request,
        contents,
        origin: originOf(context) ?? null,
        requestedBy: { id: subject.id, name: subject.name },
        audit: { ...audit, deploymentId: id },
      }),
    )
  }

  /**
   * Stops a deployment; one that was cancelled already is returned as it is.
   * @throws NotFound, Forbidden, RateLimited, Conflict when it has ended otherwise
   */
  async cancel(anyId: string, context: RequestContext): Promise<DeploymentSnapshot> {
    return this.runMutationOn('CANCEL', anyId, context, (deployment, audit) =>
      this.cancelUntilStopped(deployment.id, audit),
    )
  }

  private async cancelUntilStopped(id: string, audit: AuditEntry): Promise<DeploymentSnapshot> {
    for (let tries = 1; tries <= MAX_CANCEL_ATTEMPTS; tries++) {
      const cancelled = await this.store.cancelUnleased(id, audit)
      if (cancelled) return cancelled
      if (await this.store.requestCancel(id, audit)) {
        const ended = this.waitUntilFinished(id)
        await this.signals.notifyCancel(id)
        await ended
      }
      const deployment = await this.findOrThrow(id)
      if (deployment.status === 'SUCCEEDED' || deployment.status === 'FAILED') {
        throw new ConflictError(
          `This deployment has ${deployment.status.toLowerCase()} already; there is nothing to cancel.`,
          { deploymentId: id },
        )
      }
      // Running still: its runner has been asked. Waiting: it began to between our two looks, and nobody has been asked.
      if (deployment.status === 'CANCELLED' || deployment.status === 'RUNNING') return deployment
    }
    throw new ConflictError('The deployment keeps changing. Cancel it again.', { deploymentId: id })
  }

  /**
   * Goes on from the step that failed.
   * @throws NotFound, Forbidden, RateLimited, Conflict when it is not in such a state, or another deployment of the
   * repository is active
   */
  async retry(anyId: string, context: RequestContext): Promise<DeploymentSnapshot> {
    return this.runMutationOn('RETRY', anyId, context, (deployment, audit) =>
      this.retryFailed(deployment, audit),
    )
  }

  private async retryFailed(before: DeploymentSnapshot, audit: AuditEntry): Promise<DeploymentSnapshot> {
    try {
      return await this.startWithSlot((runner) => this.store.retry(before.id, runner, audit))
    } catch (error) {
      if (error instanceof InUseError) throw await this.activeConflict(before)
      if (error instanceof NotStartedError) throw await this.retryConflict(before.id)
      throw error
    }
  }

  /** By its id in either case of letters. Undefined: there is none, or the subject may not see it. */
  async find(id: string, { rights }: Subject): Promise<DeploymentSnapshot | undefined> {
    const deployment = isUuid(id) ? await this.store.find(id) : undefined
    return deployment && includesOrg(rights.sees, deployment.org) ? deployment : undefined
  }

  private async findOrThrow(id: string): Promise<DeploymentSnapshot> {
    const deployment = await this.store.find(id)
    if (!deployment) throw new NotFoundError(`Deployment ${id}`)
    return deployment
  }

  list(page: {
    limit: number
    before: string | null
    sees: Organizations
    org: string | null
    repo: string | null
    statuses: readonly DeploymentStatus[] | null
  }): Promise<DeploymentSnapshot[]> {
    return this.store.list(page)
  }

  /**
   * Counts a mutation, carries it out, and has it in the audit log whatever it ends with. `work` stores the entry in the
   * transaction of what it does.
   */
  private async runMutation<T>(
    action: AuditAction,
    target: string,
    { subject, address, signal }: RequestContext,
    work: (audit: AuditEntry) => Promise<T>,
  ): Promise<T> {
    this.rateLimiter.countMutation(subject)
    const audit: AuditEntry = { action, subject, address, target, result: 'OK' }
    try {
      return await work(audit)
    } catch (error) {
      const noted = this.auditFailure({ ...audit, result: auditResultOf(error, signal) })
      // A second wait for a database that is away would keep the caller from hearing of it.
      if (!(error instanceof DatabaseUnavailableError)) await noted
      throw error
    }
  }

  /** Never rejects: what the mutation ended with counts more than that it could not be noted. */
  private async auditFailure(entry: AuditEntry): Promise<void> {
    try {
      await appendAuditEntry(this.database, entry)
    } catch (error) {
      const { action, subject, address, target, result } = entry
      this.logger.error('A mutation is missing from the audit log', {
        ...{ action, subjectId: subject?.id, address, target, result },
        error,
      })
    }
  }

  /** The same, of a deployment that the subject may change. */
  private runMutationOn<T>(
    action: AuditAction,
    id: string,
    context: RequestContext,
    work: (deployment: DeploymentSnapshot, audit: AuditEntry) => Promise<T>,
  ): Promise<T> {
    const { subject } = context
    return this.runMutation(action, id, context, async (audit) => {
      const found = isUuid(id) ? await this.store.find(id) : undefined
      if (found) audit.target = `${found.org}/${found.repo}`
      if (!found || !includesOrg(subject.rights.sees, found.org)) {
        throw new NotFoundError(`Deployment ${id.slice(0, 50)}`)
      }
      if (!canManage(subject, { ...found, requestedBy: found.requestedBy ?? null }))
        throw changeForbidden(subject)
      return work(found, { ...audit, deploymentId: found.id })
    })
  }

  private async accept(
    wanted: Omit<NewDeployment, 'inputDigest' | 'leaseHolder'>,
  ): Promise<DeploymentSnapshot> {
    const { request, contents, requestedBy, audit } = wanted
    const inputDigest = computeInputDigest(request, contents)
    for (let tries = 1; ; tries++) {
      try {
        return await this.startWithSlot((runner) =>
          this.store.accept({ ...wanted, inputDigest, leaseHolder: runner }),
        )
      } catch (error) {
        if (!(error instanceof InUseError)) throw error
        const earlier = await this.resolveConflict(request, requestedBy, inputDigest)
        if (earlier) {
          await appendAuditEntry(this.database, { ...audit, deploymentId: earlier.id })
          return earlier
        }
        if (tries === MAX_ACCEPT_ATTEMPTS)
          throw new ConflictError('Other requests for this repository keep coming in between. Try again.')
      }
    }
  }

  /** Runs a move that may start a deployment, with a place for it if this node has one. */
  private async startWithSlot(
    move: (runner: { name: string; leaseMs: number } | null) => Promise<StartResult | undefined>,
  ): Promise<DeploymentSnapshot> {
    const place = this.runner.reserveSlot()
    let isStarted = false
    try {
      const started = await move(place?.leaseHolder ?? null)
      if (!started) throw new NotStartedError()
      if (place && started.leased) {
        place.startRun(started.leased)
        isStarted = true
      }
      if (started.deployment.status === 'QUEUED') await this.signals.notifyWorkAvailable()
      return started.deployment
    } finally {
      if (!isStarted) {
        place?.release()
        // It may have been queued although a place has become free since.
        this.runner.pollNow()
      }
    }
  }

  private async retryConflict(id: string): Promise<ConflictError> {
    const { status } = await this.findOrThrow(id)
    const removedAt = await this.store.contentsRemovedAt(id)
    if (removedAt && (status === 'FAILED' || status === 'CANCELLED')) {
      return new ConflictError(
        `The contents of this deployment were removed on ${removedAt.toISOString().slice(0, 10)}, as those of all that ended long ago (RETENTION_DAYS). Deploy the repository anew, with its contents.`,
        { deploymentId: id },
      )
    }
    return new ConflictError(
      'Only a deployment that was cancelled, or that failed and may be retried, can be retried.',
    )
  }

  /** Who was in the way: the same request, which is answered with what it made; or another, which is a conflict. */
  private async resolveConflict(
    request: DeployRequest,
    subject: Pick<Subject, 'id'>,
    inputDigest: string,
  ): Promise<DeploymentSnapshot | undefined> {
    if (request.idempotencyKey !== null) {
      const earlier = await this.store.findByIdempotencyKey(subject, request.idempotencyKey)
      if (earlier?.inputDigest === inputDigest) return earlier.deployment
      if (earlier) {
        throw new ConflictError(
          'This idempotency key was used for another input. Use a new key for a new deployment, and the same input with the same key.',
          // Elsewhere the subject may see nothing any more.
          includesOrg([request.org.toLowerCase()], earlier.deployment.org)
            ? { deploymentId: earlier.deployment.id }
            : {},
        )
      }
    }
    const active = await this.store.findActive(request.org, request.repo)
    if (active) throw await this.activeConflict(active)
    return undefined
  }

  private async activeConflict({
    org,
    repo,
  }: Pick<DeploymentSnapshot, 'org' | 'repo'>): Promise<ConflictError> {
    const active = await this.store.findActive(org, repo)
    return new ConflictError(
      `Another deployment of ${org}/${repo} is active. Follow it, cancel it, or wait until it has ended.`,
      active ? { deploymentId: active.id } : {},
    )
  }

  /** Resolves when the deployment has ended, or after a while. */
  private async waitUntilFinished(id: string): Promise<void> {
    const follower = (await this.feed.follow({ deploymentId: id, sees: 'all' }))[Symbol.asyncIterator]()
    const giveUp = setTimeout(() => void follower.return(), CANCEL_WAIT_MS)
    try {
      for await (const event of follower) {
        if (isFinished(event.deployment.status)) return
      }
    } finally {
      clearTimeout(giveUp)
    }
  }
}

/** The code that the caller is answered with. */
function auditResultOf(error: unknown, signal: AbortSignal): ErrorCode | 'BAD_REQUEST' {
  if (error instanceof ShipcastError) return error.code
  return signal.aborted && error === signal.reason ? 'BAD_REQUEST' : 'INTERNAL'
}

function deployForbidden({ rights }: Subject, org: string): ForbiddenError {
  if (rights.role === 'viewer')
    return new ForbiddenError(
      'You may see deployments, and not deploy. Ask an admin for the role "deployer".',
    )
  const own = rights.deploysTo === 'all' ? '' : rights.deploysTo.join(', ')
  return new ForbiddenError(
    `You may deploy to ${own}, and not to ${quote(org)}. Ask an admin, or deploy to one of yours.`,
  )
}

function changeForbidden({ rights }: Subject): ForbiddenError {
  return new ForbiddenError(
    rights.role === 'viewer'
      ? 'You may see this deployment, and not change it. Ask who requested it, or an admin.'
      : 'You may cancel and retry the deployments that you requested yourself. Ask who requested this one, or an admin.',
  )
}

/** The move did not apply: the deployment was not in such a state. */
class NotStartedError extends Error {}

/** Fixed here, once: however often the commit is pushed, it is the same commit. */
function commitPlan(id: string, request: DeployRequest) {
  return {
    message: withTrailer(request.commitMessage, `Deployment-Id: ${id}`),
    author: AUTHOR,
    unixSeconds: Math.floor(Date.now() / 1000),
  }
}

/** Equal for equal inputs. Files count by the tree that they make, in any order; a template by name and variables. */
function computeInputDigest(
  { contents, idempotencyKey: _, ...request }: DeployRequest,
  planned: UnpackedContents,
): string {
  const from = contents.template
    ? { template: contents.template.name, variables: Object.entries(contents.template.variables).sort() }
    : { tree: planned.tree }
  return createHash('sha256')
    .update(JSON.stringify([Object.entries(request).sort(), from]))
    .digest('hex')
}
