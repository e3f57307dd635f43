import { includesOrg, type Organizations } from '../auth/rights.ts'
import type { EventBatch, EventSource } from './event-stream.ts'

export type DeploymentStep = 'DEPLOY' | 'CREATE_ORG' | 'CREATE_REPO' | 'PUSH_CONTENTS' | 'DONE'
export type DeploymentStatus = 'QUEUED' | 'RUNNING' | 'WAITING' | 'SUCCEEDED' | 'FAILED' | 'CANCELLED'

/** Statuses of an unfinished deployment; a repository has at most one of these at a time. */
export const ACTIVE_STATUSES = ['QUEUED', 'RUNNING', 'WAITING'] as const satisfies DeploymentStatus[]

export function isActive({ status }: Pick<DeploymentSnapshot, 'status'>): boolean {
  return ACTIVE_STATUSES.some((active) => active === status)
}

export interface DeploymentProblem {
  code: string
  message: string
  retryable: boolean
  step: DeploymentStep
}

/** A deployment as subscribers see it at one of its events, stored as JSON. Times are ISO 8601, UTC. */
export interface DeploymentSnapshot {
  id: string
  org: string
  repo: string
  visibility: 'PUBLIC' | 'PRIVATE'
  description: string | null
  branch: string
  step: DeploymentStep
  status: DeploymentStatus
  text: string
  sequence: number
  attempt: number
  progress: { done: number; total: number; unit: string } | null
  waitingUntil: string | null
  error: DeploymentProblem | null
  repositoryUrl: string | null
  cloneUrl: string | null
  commitSha: string | null
  fileCount: number
  sizeBytes: number
  createdAt: string
  updatedAt: string
  finishedAt: string | null
  requestedBy?: { id: string; name: string } | null
  /** At most 20 sentences, and their total number. */
  warnings?: string[]
  warningCount?: number
}

/** An entry of the event log, with the whole state: a subscriber is up to date after any single event. */
export interface LoggedEvent {
  /** 1, 2, 3 … over all deployments, in order of commit. */
  position: number
  deploymentId: string
  /** 1, 2, 3 … within the deployment. */
  sequence: number
  at: Date
  /** The connection whose request caused the event, and which does not receive it. */
  origin: string | null
  deployment: DeploymentSnapshot
  /** A random number, and that of the previous event: they distinguish this log from others. */
  eventId: number
  previousEventId: number
}

type MaybePromise<T> = T | Promise<T>

/** The part of the feed that a source uses. */
export interface DeploymentFeed {
  readonly logId: number
  readonly head: number
  snapshot(deploymentId?: string): MaybePromise<EventBatch<LoggedEvent>>
  readAfter(position: number, deploymentId?: string): MaybePromise<EventBatch<LoggedEvent>>
  waitForEventAfter(position: number, signal: AbortSignal): Promise<void>
  onEvent(listener: (event: LoggedEvent) => void, deploymentId?: string): () => void
}

/** The events of one deployment, or of all deployments in the organizations that a subject can see. */
export class DeploymentEventSource implements EventSource<LoggedEvent> {
  constructor(
    private readonly feed: DeploymentFeed,
    private readonly sees: Organizations,
    private readonly deploymentId: string | undefined,
  ) {}

  get key(): string {
    return JSON.stringify([this.deploymentId ?? null, this.sees])
  }

  get topic(): string {
    return this.deploymentId ?? 'all deployments'
  }

  get logId(): number {
    return this.feed.logId
  }

  get head(): number {
    return this.feed.head
  }

  snapshot(): MaybePromise<EventBatch<LoggedEvent>> {
    return this.filter(this.feed.snapshot(this.deploymentId))
  }

  readAfter(position: number): MaybePromise<EventBatch<LoggedEvent>> {
    return this.filter(this.feed.readAfter(position, this.deploymentId))
  }

  waitForEventAfter(position: number, signal: AbortSignal): Promise<void> {
    return this.feed.waitForEventAfter(position, signal)
  }

  onEvent(listener: (event: LoggedEvent) => void): () => void {
    return this.feed.onEvent((event) => {
      if (this.includes(event)) listener(event)
    }, this.deploymentId)
  }

  private filter(batch: MaybePromise<EventBatch<LoggedEvent>>): MaybePromise<EventBatch<LoggedEvent>> {
    if (batch instanceof Promise) return batch.then((read) => this.filter(read))
    if (this.deploymentId === undefined && this.sees === 'all') return batch
    return { events: batch.events.filter((event) => this.includes(event)), until: batch.until }
  }

  private includes({ deploymentId, deployment }: LoggedEvent): boolean {
    const isWanted = this.deploymentId === undefined || deploymentId === this.deploymentId
    return isWanted && includesOrg(this.sees, deployment.org)
  }
}
