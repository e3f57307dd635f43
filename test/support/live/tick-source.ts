import type { EventBatch, EventSource, OrderedEvent } from '../../../src/events/event-stream.ts'

export interface Tick extends OrderedEvent {
  count: number
}

/** An ordered source unrelated to deployments: the integers, one at a time, in memory. */
export class TickSource implements EventSource<Tick> {
  readonly key = 'ticks'
  readonly topic = 'all ticks'
  readonly logId = 1
  private readonly ticks: Tick[] = []
  private readonly listeners = new Set<(tick: Tick) => void>()

  get head(): number {
    return this.ticks.length
  }

  get listenerCount(): number {
    return this.listeners.size
  }

  tick(origin: string | null = null): void {
    const count = this.ticks.length + 1
    const tick = { position: count, eventId: count, at: new Date(), origin, count }
    this.ticks.push(tick)
    for (const listener of this.listeners) listener(tick)
  }

  snapshot(): EventBatch<Tick> {
    return { events: this.ticks.slice(-1), until: this.head }
  }

  readAfter(position: number): EventBatch<Tick> | Promise<EventBatch<Tick>> {
    return { events: this.ticks.slice(position), until: this.head }
  }

  waitForEventAfter(): Promise<void> {
    throw new Error('Not expected: the fan-out uses onEvent.')
  }

  onEvent(listener: (tick: Tick) => void): () => void {
    this.listeners.add(listener)
    return () => this.listeners.delete(listener)
  }
}
