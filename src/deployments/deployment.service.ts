import { createHash } from 'node:crypto'
import { Injectable, Logger } from '@nestjs/common'
import { validate as isUuid, v7 as uuidv7 } from 'uuid'
import { type AuditAction, type AuditEntry, appendAuditEntry } from '../auth/audit-log.ts'
import { originOf, type RequestContext } from '../auth/principal.ts'
import { RateLimiter } from '../auth/rate-limiter.ts'
import { canManage, includesOrg, type Subject } from '../auth/rights.ts'
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
import {
  type DeploymentSnapshot,
  type DeploymentStatus,
  isActive,
  type LoggedEvent,
} from '../events/deployment-event.ts'
import { EventFeed } from '../events/event-feed.ts'
import type { EventStream } from '../events/event-stream.ts'
import { prepareContents, type UnpackedContents } from '../github/git/commit-pack.ts'
import { TemplateCatalog } from '../templates/template-catalog.ts'
import { withTrailer } from './contents/commit-message.ts'
import type { DeployInput } from './deploy.input.ts'
import { DeploymentStore, InUseError, type NewDeployment, type StartResult } from './deployment-store.ts'
import { DeploymentRunner } from './runner/deployment-runner.ts'
import type { LeaseHolder } from './runner/lease-store.ts'
import { RunnerSignals } from './runner/runner-signals.ts'
import { type DeployRequest, validateDeployInput } from './validate-deploy-input.ts'

const AUTHOR = { name: 'Shipcast', email: 'shipcast@users.noreply.github.com' }
/**
 * A conflict may be over by the time its cause is looked up; accepting the deployment
 * is then attempted again.
 */
const MAX_ACCEPT_ATTEMPTS = 3
/** A deployment may start or begin to wait between two statements; cancelling is then attempted again. */
const MAX_CANCEL_ATTEMPTS = 5
/**
 * How long a cancellation waits for the runner, which is notified by a signal or, at the
 * latest, its next heartbeat.
 */
const CANCEL_WAIT_MS = 5_000

/** The sender of a request. */
type Caller = Pick<RequestContext, 'subject' | 'address' | 'connectionId' | 'signal'>

interface DeploymentPage {
  limit: number
  /** Only deployments older than this id. */
  before: string | null
  org: string | null | undefined
  repo: string | null | undefined
  statuses: readonly DeploymentStatus[] | null | undefined
}

/** What users can do with deployments. Independent of GraphQL; the runner executes the steps. */
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
   * Stores a deployment with its contents and first event, and starts it if this node has a free slot.
   * @throws BadUserInputError, ConflictError, ForbiddenError, RateLimitedError
   */
  async deploy(input: DeployInput, caller: Caller): Promise<DeploymentSnapshot> {
    return this.runMutation('DEPLOY', `${input.org}/${input.repo}`, caller, (audit) =>
      this.validateAndAccept(input, caller, audit),
    )
  }

  private async validateAndAccept(
    input: DeployInput,
    caller: Caller,
    audit: AuditEntry,
  ): Promise<DeploymentSnapshot> {
    const { subject, signal } = caller
    if (!includesOrg(subject.rights.deploysTo, input.org)) throw deployForbidden(subject, input.org)
    const request = await validateDeployInput(input, { templates: this.templates, signal })
    const id = uuidv7()
    const { files } = request.contents
    const parties = [subject.id, `org:${request.org.toLowerCase()}`]
    using contents = await prepareContents(files, commitPlan(id, request), { signal, parties })
    return await this.accept({
      id,
      request,
      contents,
      origin: originOf(caller) ?? null,
      requestedBy: { id: subject.id, name: subject.name },
      audit: { ...audit, deploymentId: id },
    })
  }

  /**
   * Cancels a deployment; a cancelled one is returned unchanged.
   * @throws NotFoundError, ForbiddenError, RateLimitedError, ConflictError if it has succeeded or failed
   */
  async cancel(id: string, caller: Caller): Promise<DeploymentSnapshot> {
    return this.runMutationOn('CANCEL', id, caller, (deployment, audit) =>
      this.cancelUntilStopped(deployment.id, audit),
    )
  }

  private async cancelUntilStopped(id: string, audit: AuditEntry): Promise<DeploymentSnapshot> {
    for (let attempt = 1; attempt <= MAX_CANCEL_ATTEMPTS; attempt++) {
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
          `This deployment has already ${deployment.status.toLowerCase()}, so it cannot be cancelled.`,
          { deploymentId: id },
        )
      }
      // Still running: its runner was notified. Otherwise it began to wait between the
      // two statements: try again.
      if (deployment.status === 'CANCELLED' || deployment.status === 'RUNNING') return deployment
    }
    throw new ConflictError('The deployment kept changing while it was being cancelled. Cancel it again.', {
      deploymentId: id,
    })
  }

  /**
   * Resumes a deployment at the step that failed.
   * @throws NotFoundError, ForbiddenError, RateLimitedError, ConflictError if it cannot be retried, or another
   * deployment of the repository is active
   */
  async retry(id: string, caller: Caller): Promise<DeploymentSnapshot> {
    return this.runMutationOn('RETRY', id, caller, (deployment, audit) => this.retryFailed(deployment, audit))
  }

  private async retryFailed(deployment: DeploymentSnapshot, audit: AuditEntry): Promise<DeploymentSnapshot> {
    try {
      return await this.startWithSlot((holder) => this.store.retry(deployment.id, holder, audit))
    } catch (error) {
      if (error instanceof InUseError) throw await this.activeConflict(deployment)
      if (error instanceof NotStartedError) throw await this.retryConflict(deployment.id)
      throw error
    }
  }

  /** Undefined: it does not exist, or the subject cannot view it. The id is case-insensitive. */
  async find(id: string, { rights }: Subject): Promise<DeploymentSnapshot | undefined> {
    const deployment = isUuid(id) ? await this.store.find(id) : undefined
    return deployment && includesOrg(rights.sees, deployment.org) ? deployment : undefined
  }

  private async findOrThrow(id: string): Promise<DeploymentSnapshot> {
    const deployment = await this.store.find(id)
    if (!deployment) throw new NotFoundError(`Deployment ${id}`)
    return deployment
  }

  /** Newest first, only those that the subject can view. */
  async list(page: DeploymentPage, { rights }: Subject): Promise<DeploymentSnapshot[]> {
    const { org = null, repo = null, statuses = null, ...range } = page
    if (![org, repo].every(isPossibleName)) return []
    return this.store.list({ ...range, org, repo, statuses, sees: rights.sees })
  }

  /**
   * The events that a subscription delivers: of one deployment or of all, from now or after a cursor.
   * @throws NotFoundError, RateLimitedError, UnknownCursorError
   */
  async follow(
    deploymentId: string | null | undefined,
    after: string | null | undefined,
    caller: Caller,
  ): Promise<EventStream<LoggedEvent>> {
    const { subject } = caller
    this.rateLimiter.countSubscription(subject)
    const { sees } = subject.rights
    // An empty id matches no deployment; it must not mean "all".
    const visibleId = deploymentId == null ? undefined : await this.requireVisibleId(deploymentId, subject)
    return this.feed.follow({
      deploymentId: visibleId,
      after,
      sees,
      origin: originOf(caller),
    })
  }

  /** The id as stored, in lower case. Reads the feed instead of the database: many may subscribe at once. */
  private async requireVisibleId(deploymentId: string, { rights }: Subject): Promise<string> {
    const id = deploymentId.toLowerCase()
    const [event] = isUuid(id) ? (await this.feed.snapshot(id)).events : []
    if (event && includesOrg(rights.sees, event.deployment.org)) return id
    throw deploymentNotFound(deploymentId)
  }

  /**
   * Counts a mutation, runs it and records it in the audit log, whatever its result. `mutate` itself stores
   * the entry of a success, in its own transaction.
   */
  private async runMutation<T>(
    action: AuditAction,
    target: string,
    { subject, address, signal }: Caller,
    mutate: (audit: AuditEntry) => Promise<T>,
  ): Promise<T> {
    this.rateLimiter.countMutation(subject)
    const audit: AuditEntry = { action, subject, address, target, result: 'OK' }
    try {
      return await mutate(audit)
    } catch (error) {
      const recorded = this.auditFailure({ ...audit, result: auditResultOf(error, signal) })
      // The caller should not wait for an unavailable database a second time.
      if (!(error instanceof DatabaseUnavailableError)) await recorded
      throw error
    }
  }

  /** Never rejects: the mutation's own error matters more to the caller. */
  private async auditFailure(entry: AuditEntry): Promise<void> {
    try {
      await appendAuditEntry(this.database, entry)
    } catch (error) {
      const { action, subject, address, target, result } = entry
      this.logger.error('Could not record a mutation in the audit log', {
        ...{ action, subjectId: subject?.id, address, target, result },
        error,
      })
    }
  }

  /** Like `runMutation`, for a deployment that the subject can manage. */
  private runMutationOn<T>(
    action: AuditAction,
    id: string,
    caller: Caller,
    mutate: (deployment: DeploymentSnapshot, audit: AuditEntry) => Promise<T>,
  ): Promise<T> {
    const { subject } = caller
    return this.runMutation(action, id, caller, async (audit) => {
      const found = isUuid(id) ? await this.store.find(id) : undefined
      if (found) audit.target = `${found.org}/${found.repo}`
      if (!found || !includesOrg(subject.rights.sees, found.org)) throw deploymentNotFound(id)
      if (!canManage(subject, { ...found, requestedBy: found.requestedBy ?? null }))
        throw manageForbidden(subject)
      return mutate(found, { ...audit, deploymentId: found.id })
    })
  }

  private async accept(
    deployment: Omit<NewDeployment, 'inputDigest' | 'leaseHolder'>,
  ): Promise<DeploymentSnapshot> {
    const { request, contents, requestedBy, audit } = deployment
    const inputDigest = computeInputDigest(request, contents)
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.startWithSlot((leaseHolder) =>
          this.store.accept({ ...deployment, inputDigest, leaseHolder }),
        )
      } catch (error) {
        if (!(error instanceof InUseError)) throw error
        const earlier = await this.resolveConflict(request, requestedBy, inputDigest)
        if (earlier) {
          await appendAuditEntry(this.database, { ...audit, deploymentId: earlier.id })
          return earlier
        }
        if (attempt === MAX_ACCEPT_ATTEMPTS)
          throw new ConflictError('Concurrent requests for this repository kept interfering. Try again.')
      }
    }
  }

  /** Runs a transition that may start a deployment, with a slot for it if this node has one. */
  private async startWithSlot(
    transition: (leaseHolder: LeaseHolder | null) => Promise<StartResult | undefined>,
  ): Promise<DeploymentSnapshot> {
    const slot = this.runner.reserveSlot()
    let isStarted = false
    try {
      const started = await transition(slot?.leaseHolder ?? null)
      if (!started) throw new NotStartedError()
      if (slot && started.leased) {
        slot.startRun(started.leased)
        isStarted = true
      }
      if (started.deployment.status === 'QUEUED') await this.signals.notifyWorkAvailable()
      return started.deployment
    } finally {
      if (!isStarted) {
        slot?.release()
        // A slot may have become free while it was being queued.
        this.runner.pollNow()
      }
    }
  }

  private async retryConflict(id: string): Promise<ConflictError> {
    const { status } = await this.findOrThrow(id)
    const removedAt = await this.store.contentsRemovedAt(id)
    if (removedAt && (status === 'FAILED' || status === 'CANCELLED')) {
      return new ConflictError(
        `The contents of this deployment were removed on ${removedAt.toISOString().slice(0, 10)} because it ended more than RETENTION_DAYS ago. Deploy the repository again with its contents.`,
        { deploymentId: id },
      )
    }
    return new ConflictError(
      'Only a cancelled deployment, or a failed one whose error is retryable, can be retried.',
    )
  }

  /**
   * Resolves to the deployment of an earlier, identical request; throws the conflict with
   * a different one, if any.
   */
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
          'This idempotency key was already used with a different input. Use a new key for a new deployment.',
          // The subject may no longer be allowed to view another organization.
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
      `Another deployment of ${org}/${repo} is active. Follow it, cancel it, or wait until it ends.`,
      active ? { deploymentId: active.id } : {},
    )
  }

  /** Resolves when the deployment ends, or after `CANCEL_WAIT_MS`. */
  private async waitUntilFinished(id: string): Promise<void> {
    const events = (await this.feed.follow({ deploymentId: id, sees: 'all' }))[Symbol.asyncIterator]()
    const timer = setTimeout(() => void events.return(), CANCEL_WAIT_MS)
    try {
      for await (const { deployment } of events) {
        if (!isActive(deployment)) return
      }
    } finally {
      clearTimeout(timer)
    }
  }
}

/** The error code that the caller receives. */
function auditResultOf(error: unknown, signal: AbortSignal): ErrorCode | 'BAD_REQUEST' {
  if (error instanceof ShipcastError) return error.code
  return signal.aborted && error === signal.reason ? 'BAD_REQUEST' : 'INTERNAL'
}

function deployForbidden({ rights }: Subject, org: string): ForbiddenError {
  if (rights.role === 'viewer')
    return new ForbiddenError(
      'You can view deployments but not create them. Ask an admin for the role "deployer".',
    )
  const allowed = rights.deploysTo === 'all' ? '' : rights.deploysTo.join(', ')
  return new ForbiddenError(
    `You can deploy to ${allowed}, but not to ${quote(org)}. Ask an admin for access.`,
  )
}

function manageForbidden({ rights }: Subject): ForbiddenError {
  return new ForbiddenError(
    rights.role === 'viewer'
      ? 'You can view this deployment but not change it. Ask the person who requested it, or an admin.'
      : 'You can cancel and retry only your own deployments. Ask the person who requested this one, or an admin.',
  )
}

/** The transition did not apply: the deployment was not in a state to be started. */
class NotStartedError extends Error {
  override readonly name = 'NotStartedError'
}

function deploymentNotFound(id: string): NotFoundError {
  return new NotFoundError(`Deployment ${id.slice(0, 50)}`)
}

/** Excludes the empty name, and values that Postgres would reject with an error. */
function isPossibleName(name: string | null): boolean {
  return name === null || /^[A-Za-z0-9._-]{1,100}$/.test(name)
}

/** Fixed once, so that every push creates the same commit. */
function commitPlan(id: string, request: DeployRequest) {
  return {
    message: withTrailer(request.commitMessage, `Deployment-Id: ${id}`),
    author: AUTHOR,
    unixSeconds: Math.floor(Date.now() / 1000),
  }
}

/**
 * Equal for equal inputs: files are compared by their tree, in any order; templates by name and variables.
 */
function computeInputDigest(
  { contents, idempotencyKey: _, ...request }: DeployRequest,
  planned: UnpackedContents,
): string {
  const source = contents.template
    ? { template: contents.template.name, variables: Object.entries(contents.template.variables).sort() }
    : { tree: planned.tree }
  return createHash('sha256')
    .update(JSON.stringify([Object.entries(request).sort(), source]))
    .digest('hex')
}
