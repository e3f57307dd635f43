import { LRUCache } from 'lru-cache'
import { SharedCalls } from '../runtime/coalesced-task.ts'
import type { LoggedEvent } from './deployment-event.ts'
import type { EventLog } from './event-log.ts'
import type { EventBatch } from './event-stream.ts'

const EVENTS_PER_BLOCK = 500
/** Blocks kept for subscribers that resume together; about half a megabyte each. */
const MAX_CACHED_BLOCKS = 16
const BLOCK_TTL_MS = 30_000

/**
 * Reads events that are no longer in memory, once for all concurrent callers. Reads the log of all
 * deployments in blocks with fixed boundaries, so that subscribers who left at different events need the same
 * block.
 */
export class LogReader {
  private readonly blocks = new LRUCache<number, Promise<EventBatch<LoggedEvent>>>({
    max: MAX_CACHED_BLOCKS,
    ttl: BLOCK_TTL_MS,
  })
  private readonly reads = new SharedCalls<EventBatch<LoggedEvent>>()

  constructor(private readonly log: EventLog) {}

  /** `head`: a position that the log has reached; every event up to it can be read. */
  async readAfter(
    position: number,
    deploymentId: string | undefined,
    head: number,
  ): Promise<EventBatch<LoggedEvent>> {
    if (deploymentId === undefined) {
      const start = Math.floor(position / EVENTS_PER_BLOCK) * EVENTS_PER_BLOCK
      const { events, until } = await this.readBlock(start, head)
      return { events: events.filter((event) => event.position > position), until }
    }
    return this.reads.run(`${deploymentId} after ${position}`, async () => {
      const events = await this.log.read({ position, deploymentId, limit: EVENTS_PER_BLOCK })
      const last = events.at(-1)?.position ?? head
      return { events, until: events.length < EVENTS_PER_BLOCK ? Math.max(head, last) : last }
    })
  }

  /** The deployment's newest event at `until`; no event if the deployment does not exist. */
  readLatest(deploymentId: string, until: number): Promise<EventBatch<LoggedEvent>> {
    return this.reads.run(`latest of ${deploymentId}`, async () => {
      const events = await this.log.readLatest({ deploymentId, after: 0, until, limit: 1 })
      return { events, until }
    })
  }

  /** The events from `start` + 1 on. Keeps complete blocks, not the one that is still growing. */
  private readBlock(start: number, head: number): Promise<EventBatch<LoggedEvent>> {
    const kept = this.blocks.get(start)
    if (kept) return kept
    const read = this.reads.run(`block after ${start}`, async () => {
      const events = await this.log.read({ position: start, limit: EVENTS_PER_BLOCK })
      return { events, until: events.at(-1)?.position ?? head }
    })
    if (head >= start + EVENTS_PER_BLOCK) {
      this.blocks.set(start, read)
      read.catch(() => this.blocks.delete(start))
    }
    return read
  }
}
