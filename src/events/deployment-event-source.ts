import { includesOrg, type Organizations } from '../auth/rights.ts'
import type { LoggedEvent } from './deployment-event.ts'
import type { EventBatch, EventSource } from './event-source.ts'

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
