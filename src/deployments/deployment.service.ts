import { createHash } from 'node:crypto'
import { Injectable, Logger } from '@nestjs/common'
import { validate as isUuid, v7 as uuidv7 } from 'uuid'
import { type AuditAction, type AuditEntry, appendAudit } from '../auth/audit-log.ts'
import { Limits } from '../auth/limits.ts'
import { originOf, type RequestContext } from '../auth/request-context.ts'
import { includesOrg, mayChange, type Organizations, type Subject } from '../auth/rights.ts'
import { Database } from '../database/database.ts'
import { DatabaseUnavailable } from '../database/database-errors.ts'
import { Conflict, type ErrorCode, Forbidden, NotFound, quote, ShipcastError } from '../errors.ts'
import { EventFeed } from '../events/event-feed.ts'
import type { DeploymentSnapshot, DeploymentStatus } from '../events/logged-event.ts'
import { prepareContents, type UnpackedContents } from '../github/git/commit-pack.ts'
import { TemplateCatalog } from '../templates/template-catalog.ts'
import { withTrailer } from './contents/commit-message.ts'
import type { DeployInput, DeployRequest } from './deploy-input.ts'
import { type Acceptance, DeploymentStore, InTheWay, type Started } from './deployment-store.ts'
import { isFinished } from './deployment-texts.ts'
import { DeploymentRunner } from './runner/deployment-runner.ts'
import { RunnerSignals } from './runner/runner-signals.ts'
import { readDeployInput } from './validate-deploy-input.ts'

const AUTHOR = { name: 'Shipcast', email: 'shipcast@users.noreply.github.com' }
/** What was in the way may be gone when we look at it; then it is tried again, this often. */
const MOST_ACCEPT_TRIES = 3
/** It may be taken up, or begin to wait, between two looks at it; then it is looked at again, this often. */
const MOST_CANCEL_TRIES = 5
/** The runner, here or on another node, is told at once, and in the worst case by its heartbeat; the answer waits this long. */
const CANCEL_ANSWER_MS = 5_000

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
    private readonly limits: Limits,
  ) {}

  /**
   * Accepts a deployment: stored with its contents and its first event, and started where there is room.
   * @throws BadUserInput, Conflict, Forbidden, RateLimited
   */
  async deploy(input: DeployInput, context: RequestContext): Promise<DeploymentSnapshot> {
    return this.asked('DEPLOY', `${input.org}/${input.repo}`, context, (audit) =>
      this.checkAndAccept(input, context, audit),
    )
  }

  private async checkAndAccept(
    input: DeployInput,
    context: RequestContext,
    audit: AuditEntry,
  ): Promise<DeploymentSnapshot> {
    const { subject, signal } = context
    if (!includesOrg(subject.rights.deploysTo, input.org)) throw mayNotDeploy(subject, input.org)
    const request = await readDeployInput(input, { templates: this.templates, signal })
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
    return this.askedOf('CANCEL', anyId, context, (deployment, audit) => this.stop(deployment.id, audit))
  }

  private async stop(id: string, audit: AuditEntry): Promise<DeploymentSnapshot> {
    for (let tries = 1; tries <= MOST_CANCEL_TRIES; tries++) {
      const cancelled = await this.store.cancelUnheld(id, audit)
      if (cancelled) return cancelled
      if (await this.store.requestCancel(id, audit)) {
        const ended = this.ended(id)
        await this.signals.tellToCancel(id)
        await ended
      }
      const deployment = await this.known(id)
      if (deployment.status === 'SUCCEEDED' || deployment.status === 'FAILED') {
        throw new Conflict(
          `This deployment has ${deployment.status.toLowerCase()} already; there is nothing to cancel.`,
          { deploymentId: id },
        )
      }
      // Running still: its runner has been asked. Waiting: it began to between our two looks, and nobody has been asked.
      if (deployment.status === 'CANCELLED' || deployment.status === 'RUNNING') return deployment
    }
    throw new Conflict('The deployment keeps changing. Cancel it again.', { deploymentId: id })
  }

  /**
   * Goes on from the step that failed.
   * @throws NotFound, Forbidden, RateLimited, Conflict when it is not in such a state, or another deployment of the
   * repository is active
   */
  async retry(anyId: string, context: RequestContext): Promise<DeploymentSnapshot> {
    return this.askedOf('RETRY', anyId, context, (deployment, audit) => this.goOn(deployment, audit))
  }

  private async goOn(before: DeploymentSnapshot, audit: AuditEntry): Promise<DeploymentSnapshot> {
    try {
      return await this.start((runner) => this.store.retry(before.id, runner, audit))
    } catch (error) {
      if (error instanceof InTheWay) throw await this.conflict(before)
      if (error instanceof NotStarted) throw await this.whyNoRetry(before.id)
      throw error
    }
  }

  /** By its id in either case of letters. Undefined: there is none, or the subject may not see it. */
  async find(id: string, { rights }: Subject): Promise<DeploymentSnapshot | undefined> {
    const deployment = isUuid(id) ? await this.store.find(id) : undefined
    return deployment && includesOrg(rights.sees, deployment.org) ? deployment : undefined
  }

  private async known(id: string): Promise<DeploymentSnapshot> {
    const deployment = await this.store.find(id)
    if (!deployment) throw new NotFound(`Deployment ${id}`)
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
  private async asked<T>(
    action: AuditAction,
    target: string,
    { subject, address, signal }: RequestContext,
    work: (audit: AuditEntry) => Promise<T>,
  ): Promise<T> {
    this.limits.countMutation(subject)
    const audit: AuditEntry = { action, subject, address, target, result: 'OK' }
    try {
      return await work(audit)
    } catch (error) {
      const noted = this.note({ ...audit, result: resultOf(error, signal) })
      // A second wait for a database that is away would keep the caller from hearing of it.
      if (!(error instanceof DatabaseUnavailable)) await noted
      throw error
    }
  }

  /** Never rejects: what the mutation ended with counts more than that it could not be noted. */
  private async note(entry: AuditEntry): Promise<void> {
    try {
      await appendAudit(this.database, entry)
    } catch (error) {
      const { action, subject, address, target, result } = entry
      this.logger.error('A mutation is missing from the audit log', {
        ...{ action, subjectId: subject?.id, address, target, result },
        error,
      })
    }
  }

  /** The same, of a deployment that the subject may change. */
  private askedOf<T>(
    action: AuditAction,
    id: string,
    context: RequestContext,
    work: (deployment: DeploymentSnapshot, audit: AuditEntry) => Promise<T>,
  ): Promise<T> {
    const { subject } = context
    return this.asked(action, id, context, async (audit) => {
      const found = isUuid(id) ? await this.store.find(id) : undefined
      if (found) audit.target = `${found.org}/${found.repo}`
      if (!found || !includesOrg(subject.rights.sees, found.org)) {
        throw new NotFound(`Deployment ${id.slice(0, 50)}`)
      }
      if (!mayChange(subject, { ...found, requestedBy: found.requestedBy ?? null }))
        throw mayNotChange(subject)
      return work(found, { ...audit, deploymentId: found.id })
    })
  }

  private async accept(wanted: Omit<Acceptance, 'inputDigest' | 'runner'>): Promise<DeploymentSnapshot> {
    const { request, contents, requestedBy, audit } = wanted
    const inputDigest = digest(request, contents)
    for (let tries = 1; ; tries++) {
      try {
        return await this.start((runner) => this.store.accept({ ...wanted, inputDigest, runner }))
      } catch (error) {
        if (!(error instanceof InTheWay)) throw error
        const earlier = await this.explain(request, requestedBy, inputDigest)
        if (earlier) {
          await appendAudit(this.database, { ...audit, deploymentId: earlier.id })
          return earlier
        }
        if (tries === MOST_ACCEPT_TRIES)
          throw new Conflict('Other requests for this repository keep coming in between. Try again.')
      }
    }
  }

  /** Runs a move that may start a deployment, with a place for it if this node has one. */
  private async start(
    move: (runner: { name: string; leaseMs: number } | null) => Promise<Started | undefined>,
  ): Promise<DeploymentSnapshot> {
    const place = this.runner.offer()
    let isStarted = false
    try {
      const started = await move(place?.owner ?? null)
      if (!started) throw new NotStarted()
      if (place && started.work) {
        place.start(started.work)
        isStarted = true
      }
      if (started.deployment.status === 'QUEUED') await this.signals.tellOfWork()
      return started.deployment
    } finally {
      if (!isStarted) {
        place?.giveBack()
        // It may have been queued although a place has become free since.
        this.runner.wake()
      }
    }
  }

  private async whyNoRetry(id: string): Promise<Conflict> {
    const { status } = await this.known(id)
    const removedAt = await this.store.contentsRemovedAt(id)
    if (removedAt && (status === 'FAILED' || status === 'CANCELLED')) {
      return new Conflict(
        `The contents of this deployment were removed on ${removedAt.toISOString().slice(0, 10)}, as those of all that ended long ago (RETENTION_DAYS). Deploy the repository anew, with its contents.`,
        { deploymentId: id },
      )
    }
    return new Conflict(
      'Only a deployment that was cancelled, or that failed and may be retried, can be retried.',
    )
  }

  /** Who was in the way: the same request, which is answered with what it made; or another, which is a conflict. */
  private async explain(
    request: DeployRequest,
    subject: Pick<Subject, 'id'>,
    inputDigest: string,
  ): Promise<DeploymentSnapshot | undefined> {
    if (request.idempotencyKey !== null) {
      const earlier = await this.store.findByIdempotencyKey(subject, request.idempotencyKey)
      if (earlier?.inputDigest === inputDigest) return earlier.deployment
      if (earlier) {
        throw new Conflict(
          'This idempotency key was used for another input. Use a new key for a new deployment, and the same input with the same key.',
          // Elsewhere the subject may see nothing any more.
          includesOrg([request.org.toLowerCase()], earlier.deployment.org)
            ? { deploymentId: earlier.deployment.id }
            : {},
        )
      }
    }
    const active = await this.store.findActive(request.org, request.repo)
    if (active) throw await this.conflict(active)
    return undefined
  }

  private async conflict({ org, repo }: Pick<DeploymentSnapshot, 'org' | 'repo'>): Promise<Conflict> {
    const active = await this.store.findActive(org, repo)
    return new Conflict(
      `Another deployment of ${org}/${repo} is active. Follow it, cancel it, or wait until it has ended.`,
      active ? { deploymentId: active.id } : {},
    )
  }

  /** Resolves when the deployment has ended, or after a while. */
  private async ended(id: string): Promise<void> {
    const follower = (await this.feed.follow({ deploymentId: id, sees: 'all' }))[Symbol.asyncIterator]()
    const giveUp = setTimeout(() => void follower.return(), CANCEL_ANSWER_MS)
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
function resultOf(error: unknown, signal: AbortSignal): ErrorCode | 'BAD_REQUEST' {
  if (error instanceof ShipcastError) return error.code
  return signal.aborted && error === signal.reason ? 'BAD_REQUEST' : 'INTERNAL'
}

function mayNotDeploy({ rights }: Subject, org: string): Forbidden {
  if (rights.role === 'viewer')
    return new Forbidden('You may see deployments, and not deploy. Ask an admin for the role "deployer".')
  const own = rights.deploysTo === 'all' ? '' : rights.deploysTo.join(', ')
  return new Forbidden(
    `You may deploy to ${own}, and not to ${quote(org)}. Ask an admin, or deploy to one of yours.`,
  )
}

function mayNotChange({ rights }: Subject): Forbidden {
  return new Forbidden(
    rights.role === 'viewer'
      ? 'You may see this deployment, and not change it. Ask who requested it, or an admin.'
      : 'You may cancel and retry the deployments that you requested yourself. Ask who requested this one, or an admin.',
  )
}

/** The move did not apply: the deployment was not in such a state. */
class NotStarted extends Error {}

/** Fixed here, once: however often the commit is pushed, it is the same commit. */
function commitPlan(id: string, request: DeployRequest) {
  return {
    message: withTrailer(request.commitMessage, `Deployment-Id: ${id}`),
    author: AUTHOR,
    unixSeconds: Math.floor(Date.now() / 1000),
  }
}

/** Equal for equal inputs. Files count by the tree that they make, in any order; a template by name and variables. */
function digest(
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
