import { setTimeout as sleep } from 'node:timers/promises'
import { type ReceivedEvent, Viewer } from './viewer.ts'

/** The maximum of a timer. */
const MAX_TIMER_MS = 2 ** 31 - 1

/**
 * A viewer that reconnects after every interruption, to any of the nodes, with the cursor of
 * the last event received.
 */
export class ReconnectingViewer {
  readonly events: ReceivedEvent[] = []
  connections = 0
  private readonly socketUrls: readonly string[]
  private readonly startCursor: string
  private readonly stopping = new AbortController()
  private readonly loop: Promise<void>
  private current: Viewer | undefined

  /** @param socketUrls it connects to the first one, and reconnects to any */
  constructor(socketUrls: readonly string[], startCursor: string) {
    this.socketUrls = socketUrls
    this.startCursor = startCursor
    this.loop = this.reconnectLoop()
  }

  /** All events so far. */
  allEvents(): ReceivedEvent[] {
    return [...this.events, ...(this.current?.events ?? [])]
  }

  /** The cursor of the last event received. */
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
      // Without a timeout: `close` ends it.
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
