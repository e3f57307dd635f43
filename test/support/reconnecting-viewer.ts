import { setTimeout as sleep } from 'node:timers/promises'
import { type ReceivedEvent, Viewer } from './viewer.ts'

/** The longest that a timer can be set for. */
const MAX_TIMER_MS = 2 ** 31 - 1

/** A viewer who comes back after every interruption, at some node or other, with the cursor of the last event seen. */
export class ReconnectingViewer {
  readonly events: ReceivedEvent[] = []
  connections = 0
  private readonly socketUrls: readonly string[]
  private readonly startCursor: string
  private readonly stopping = new AbortController()
  private readonly loop: Promise<void>
  private current: Viewer | undefined

  /** @param socketUrls where to connect: first at the first, later at any */
  constructor(socketUrls: readonly string[], start: string) {
    this.socketUrls = socketUrls
    this.startCursor = start
    this.loop = this.reconnectLoop()
  }

  /** All that it has seen by now. */
  allEvents(): ReceivedEvent[] {
    return [...this.events, ...(this.current?.events ?? [])]
  }

  /** The cursor of the last event seen. */
  get cursor(): string {
    return this.current?.events.at(-1)?.cursor ?? this.events.at(-1)?.cursor ?? this.startCursor
  }

  async close(): Promise<void> {
    this.stopping.abort()
    void this.current?.close()
    await this.loop
  }

  private async reconnectLoop(): Promise<void> {
    let url = this.socketUrls[0] ?? ''
    while (!this.stopping.signal.aborted) {
      const viewer = new Viewer(url)
      viewer.follow({ after: this.cursor })
      this.current = viewer
      this.connections++
      // As long as it takes: `close` ends it.
      await viewer.waitUntil(
        () => viewer.closeCode !== undefined || viewer.errors.length > 0 || this.stopping.signal.aborted,
        'the connection ends',
        MAX_TIMER_MS,
      )
      await viewer.close()
      this.current = undefined
      this.events.push(...viewer.events)
      url = this.socketUrls[Math.floor(Math.random() * this.socketUrls.length)] ?? url
      const pauseMs = 50 + Math.random() * 250
      await sleep(pauseMs, undefined, { signal: this.stopping.signal }).catch(() => undefined)
    }
  }
}
