import { LRUCache } from 'lru-cache'
import type { Stretch } from './event-feed.ts'
import type { EventLog } from './event-log.ts'

const BLOCK_EVENTS = 500
/** Blocks kept for those who come back together; half a megabyte each, or so. */
const KEPT_BLOCKS = 16
const KEPT_MS = 30_000

/**
 * Reads what is no longer in memory, once for all who want it at the same time. The log of all deployments is read in
 * blocks with fixed borders, so that viewers who left at different events still want the same block.
 */
export class LogReader {
  private readonly blocks = new LRUCache<number, Promise<Stretch>>({ max: KEPT_BLOCKS, ttl: KEPT_MS })
  private readonly underWay = new Map<string, Promise<Stretch>>()

  constructor(private readonly log: EventLog) {}

  /** `head`: how far the caller knows the log to be; nothing before it can still be missing. */
  async since(position: number, deploymentId: string | undefined, head: number): Promise<Stretch> {
    if (deploymentId === undefined) {
      const { events, until } = await this.block(Math.floor(position / BLOCK_EVENTS) * BLOCK_EVENTS, head)
      return { events: events.filter((event) => event.position > position), until }
    }
    return this.once(`${deploymentId} after ${position}`, async () => {
      const events = await this.log.read({ position, deploymentId, limit: BLOCK_EVENTS })
      const last = events.at(-1)?.position ?? head
      return { events, until: events.length < BLOCK_EVENTS ? Math.max(head, last) : last }
    })
  }

  /** The newest event of a deployment at `until`. No event: there is no such deployment. */
  newestOf(deploymentId: string, until: number): Promise<Stretch> {
    return this.once(`newest of ${deploymentId}`, async () => ({
      events: await this.log.readCurrent({ deploymentId, after: 0, until, limit: 1 }),
      until,
    }))
  }

  /** The events from `start` + 1 on: a whole block is kept, one that is still growing is not. */
  private block(start: number, head: number): Promise<Stretch> {
    const end = start + BLOCK_EVENTS
    const kept = this.blocks.get(start)
    if (kept) return kept
    const read = this.once(`block after ${start}`, async () => {
      const events = await this.log.read({ position: start, limit: BLOCK_EVENTS })
      return { events, until: events.at(-1)?.position ?? head }
    })
    if (head >= end) {
      this.blocks.set(start, read)
      read.catch(() => this.blocks.delete(start))
    }
    return read
  }

  private once(what: string, read: () => Promise<Stretch>): Promise<Stretch> {
    const before = this.underWay.get(what)
    if (before) return before
    const reading = read().finally(() => this.underWay.delete(what))
    this.underWay.set(what, reading)
    return reading
  }
}
