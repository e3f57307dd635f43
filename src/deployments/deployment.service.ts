import { createHash } from 'node:crypto'
import { Injectable } from '@nestjs/common'
import { validate as isUuid, v7 as uuidv7 } from 'uuid'
import { Conflict, NotFound } from '../errors.ts'
import { EventFeed } from '../events/event-feed.ts'
import type { DeploymentSnapshot, DeploymentStatus } from '../events/logged-event.ts'
import { prepareContents, type UnpackedContents } from '../github/prepare-contents.ts'
import type { DeployInput, DeployRequest } from './contents/deploy-input.ts'
import { TemplateCatalog } from './contents/template-catalog.ts'
import { readDeployInput } from './contents/validate-deploy-input.ts'
import { DeploymentRunner } from './deployment-runner.ts'
import { type Acceptance, DeploymentStore, InTheWay, type Started } from './deployment-store.ts'
import { isFinished } from './deployment-texts.ts'
import { RunnerSignals } from './runner-signals.ts'

const AUTHOR = { name: 'Shipcast', email: 'shipcast@users.noreply.github.com' }
/** What was in the way may be gone when we look at it; then it is tried again, this often. */
const MOST_ACCEPT_TRIES = 3
/** It may be taken up, or begin to wait, between two looks at it; then it is looked at again, this often. */
const MOST_CANCEL_TRIES = 5
/** The runner, here or on another node, is told at once, and in the worst case by its heartbeat; the answer waits this long. */
const CANCEL_ANSWER_MS = 5_000

/** Who asks, and when to stop working on the answer. */
export interface Request {
  connectionId: string | undefined
  signal: AbortSignal
}

/** What people can do to deployments. Decides; does not speak GraphQL, and leaves the steps to the runner. */
@Injectable()
export class DeploymentService {
  constructor(
    private readonly store: DeploymentStore,
    private readonly runner: DeploymentRunner,
    private readonly templates: TemplateCatalog,
    private readonly feed: EventFeed,
    private readonly signals: RunnerSignals,
  ) {}

  /**
   * Accepts a deployment: stored with its contents and its first event, and started where there is room.
   * @throws BadUserInput, Conflict
   */
  async deploy(input: DeployInput, { connectionId, signal }: Request): Promise<DeploymentSnapshot> {
    const request = await readDeployInput(input, { templates: this.templates, signal })
    const id = uuidv7()
    const { files } = request.contents
    return prepareContents(files, commitPlan(id, request), { signal }, (contents) =>
      this.accept({ id, request, contents, origin: connectionId ?? null }),
    )
  }

  /**
   * Stops a deployment; one that was cancelled already is returned as it is.
   * @throws NotFound, Conflict when it has ended otherwise
   */
  async cancel(anyId: string): Promise<DeploymentSnapshot> {
    const { id } = await this.get(anyId)
    for (let tries = 1; tries <= MOST_CANCEL_TRIES; tries++) {
      const cancelled = await this.store.cancelUnheld(id)
      if (cancelled) return cancelled
      if (await this.store.requestCancel(id)) {
        const ended = this.ended(id)
        await this.signals.tellToCancel(id)
        await ended
      }
      const deployment = await this.get(id)
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
   * @throws NotFound, Conflict when it is not in such a state, or another deployment of the repository is active
   */
  async retry(id: string): Promise<DeploymentSnapshot> {
    const before = await this.get(id)
    try {
      return await this.start((runner) => this.store.retry(before.id, runner))
    } catch (error) {
      if (error instanceof InTheWay) throw await this.conflict(before)
      if (error instanceof NotStarted) throw await this.whyNoRetry(id)
      throw error
    }
  }

  async find(id: string): Promise<DeploymentSnapshot | undefined> {
    return isUuid(id) ? this.store.find(id) : undefined
  }

  /**
   * By its id in either case of letters; from here on, the id is the one in the answer.
   * @throws NotFound
   */
  async get(id: string): Promise<DeploymentSnapshot> {
    const deployment = await this.find(id)
    if (!deployment) throw new NotFound(`Deployment ${id.slice(0, 50)}`)
    return deployment
  }

  list(page: {
    limit: number
    before: string | null
    org: string | null
    repo: string | null
    statuses: readonly DeploymentStatus[] | null
  }): Promise<DeploymentSnapshot[]> {
    return this.store.list(page)
  }

  private async accept(
    wanted: Pick<Acceptance, 'id' | 'request' | 'contents' | 'origin'>,
  ): Promise<DeploymentSnapshot> {
    const { request, contents } = wanted
    const inputDigest = digest(request, contents)
    for (let tries = 1; ; tries++) {
      try {
        return await this.start((runner) => this.store.accept({ ...wanted, inputDigest, runner }))
      } catch (error) {
        if (!(error instanceof InTheWay)) throw error
        const earlier = await this.explain(request, inputDigest)
        if (earlier) return earlier
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
    const { status } = await this.get(id)
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
    inputDigest: string,
  ): Promise<DeploymentSnapshot | undefined> {
    if (request.idempotencyKey !== null) {
      const earlier = await this.store.findByIdempotencyKey(request.idempotencyKey)
      if (earlier?.inputDigest === inputDigest) return earlier.deployment
      if (earlier) {
        throw new Conflict(
          'This idempotency key was used for another input. Use a new key for a new deployment, and the same input with the same key.',
          { deploymentId: earlier.deployment.id },
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
    const follower = (await this.feed.follow({ deploymentId: id }))[Symbol.asyncIterator]()
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

/** The move did not apply: the deployment was not in such a state. */
class NotStarted extends Error {}

/** Fixed here, once: however often the commit is pushed, it is the same commit. */
function commitPlan(id: string, request: DeployRequest) {
  return {
    message: `${request.commitMessage.trimEnd()}\n\nDeployment-Id: ${id}\n`,
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
