/** An event with a place in an ordered source. */
export interface OrderedEvent {
  /** Ascends within the source; subscribers resume after a position. */
  readonly position: number
  /** Identifies the event together with its position, which is reused if the database loses the event. */
  readonly eventId: number
  /** When the event was committed, by the database's clock. */
  readonly at: Date
  /** The connection whose request caused the event, and which does not receive it. */
  readonly origin: string | null
}

/** All events after the requested position, up to and including `until`. */
export interface EventBatch<Event extends OrderedEvent = OrderedEvent> {
  readonly events: readonly Event[]
  readonly until: number
}

/**
 * An ordered sequence of events that subscribers share and resume, such as those of all deployments that a
 * subject can see, or of one deployment. Authorization has decided what it contains.
 */
export interface EventSource<Event extends OrderedEvent = OrderedEvent> {
  /** Sources with equal keys contain the same events. */
  readonly key: string
  /** The subject of the events, for quotas: an id, or the name of a whole kind. */
  readonly topic: string
  /** Identifies the log; when it changes, the log has lost events and earlier positions are void. */
  readonly logId: number
  /** Position of the newest event that this node has seen. */
  readonly head: number
  /** The current state, as events in ascending order; `until` is the head. */
  snapshot(): EventBatch<Event> | Promise<EventBatch<Event>>
  /** All events after the position, or the first of them; not as a promise if they are in memory. */
  readAfter(position: number): EventBatch<Event> | Promise<EventBatch<Event>>
  /** Resolves once `head` is beyond the position or `logId` has changed; rejects with the signal's reason. */
  waitForEventAfter(position: number, signal: AbortSignal): Promise<void>
  /** Calls the listener for each event as `head` reaches it. Returns a function that removes the listener. */
  onEvent(listener: (event: Event) => void): () => void
}
