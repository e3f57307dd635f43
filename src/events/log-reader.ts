import { LRUCache } from 'lru-cache'
import type { EventBatch } from './event-feed.ts'
import type { EventLog } from './event-log.ts'

const EVENTS_PER_BLOCK = 500
/** Blocks kept for those who come back together; half a megabyte each, or so. */
const MAX_CACHED_BLOCKS = 16
const BLOCK_TTL_MS = 30_000

/**
 * Reads what is no longer in memory, once for all who want it at the same time. The log of all deployments is read in
 * blocks with fixed borders, so that viewers who left at different events still want the same block.
 */
export class LogReader {
  private readonly blocks = new LRUCache<number, Promise<EventBatch>>({
    max: MAX_CACHED_BLOCKS,
    ttl: BLOCK_TTL_MS,
  })
  private readonly pendingReads = new Map<string, Promise<EventBatch>>()

  constructor(private readonly log: EventLog) {}

  /** `head`: how far the caller knows the log to be; nothing before it can still be missing. */
  async readAfter(position: number, deploymentId: string | undefined, head: number): Promise<EventBatch> {
    if (deploymentId === undefined) {
      const { events, until } = await this.readBlock(
        Math.floor(position / EVENTS_PER_BLOCK) * EVENTS_PER_BLOCK,
        head,
      )
      return { events: events.filter((event) => event.position > position), until }
    }
    return this.coalesce(`${deploymentId} after ${position}`, async () => {
      const events = await this.log.read({ position, deploymentId, limit: EVENTS_PER_BLOCK })
      const last = events.at(-1)?.position ?? head
      return { events, until: events.length < EVENTS_PER_BLOCK ? Math.max(head, last) : last }
    })
  }

  /** The newest event of a deployment at `until`. No event: there is no such deployment. */
  readLatest(deploymentId: string, until: number): Promise<EventBatch> {
    return this.coalesce(`newest of ${deploymentId}`, async () => ({
      events: await this.log.readLatest({ deploymentId, after: 0, until, limit: 1 }),
      until,
    }))
  }

  /** The events from `start` + 1 on: a whole block is kept, one that is still growing is not. */
  private readBlock(start: number, head: number): Promise<EventBatch> {
    const end = start + EVENTS_PER_BLOCK
    const kept = this.blocks.get(start)
    if (kept) return kept
    const read = this.coalesce(`block after ${start}`, async () => {
      const events = await this.log.read({ position: start, limit: EVENTS_PER_BLOCK })
      return { events, until: events.at(-1)?.position ?? head }
    })
    if (head >= end) {
      this.blocks.set(start, read)
      read.catch(() => this.blocks.delete(start))
    }
    return read
  }

  private coalesce(what: string, read: () => Promise<EventBatch>): Promise<EventBatch> {
    const before = this.pendingReads.get(what)
    if (before) return before
    const reading = read().finally(() => this.pendingReads.delete(what))
    this.pendingReads.set(what, reading)
    return reading
  }
}
