import type { EventFeed } from './event-feed.ts'
import { Follower } from './follower.ts'
import type { LoggedEvent } from './logged-event.ts'

export interface FollowOptions {
  /** Only this deployment's events; otherwise everybody's. */
  deploymentId?: string | undefined
  /** This connection's own first events are left out: the answer to its request told it already. */
  connectionId?: string | undefined
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
    const { deploymentId } = this.options
    return (deploymentId === undefined || event.deploymentId === deploymentId) && !this.isEcho(event)
  }

  /** Whether the event is the news of the very request that this connection made. */
  isEcho(event: LoggedEvent): boolean {
    return event.sequence === 1 && event.origin !== null && event.origin === this.options.connectionId
  }
}
