import { includesOrg, type Organizations } from '../auth/rights.ts'
import type { EventFeed } from './event-feed.ts'
import { Follower } from './follower.ts'
import type { LoggedEvent } from './logged-event.ts'

export interface FollowOptions {
  /** The organizations whose deployments the follower may see. */
  sees: Organizations
  /** Only this deployment's events; otherwise everybody's. */
  deploymentId?: string | undefined
  /** The first events that come from here are left out: the answer to the request told them already. */
  origin?: string | undefined
}

/**
 * What somebody wants to follow, authorised and checked. Iterated, it is a `Follower` of its own; the fan-out
 * instead serves all requests for the same from one place.
 */
export class FollowRequest implements AsyncIterable<LoggedEvent> {
  constructor(
    private readonly feed: EventFeed,
    readonly options: FollowOptions,
    /** Events after this position; undefined: the state now, then what follows. */
    readonly position: number | undefined,
  ) {}

  [Symbol.asyncIterator](): Follower {
    return new Follower(this.feed, this)
  }

  wants(event: LoggedEvent): boolean {
    return this.isAbout(event) && !this.isEcho(event)
  }

  /** Whether it is of what was asked for, and may be seen. */
  isAbout({ deploymentId, deployment }: LoggedEvent): boolean {
    const { sees, deploymentId: one } = this.options
    return (one === undefined || deploymentId === one) && includesOrg(sees, deployment.org)
  }

  /** Whether the event is the news of the very request that this connection made. */
  isEcho(event: LoggedEvent): boolean {
    return event.sequence === 1 && event.origin !== null && event.origin === this.options.origin
  }
}
