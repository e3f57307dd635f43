/** Below the server's limit of 7,999 bytes (NOTIFY in the PostgreSQL manual; measured). */
const MAX_PAYLOAD_BYTES = 7_500
/** Messages beyond this many pending payloads are replaced by one empty message per topic. */
const MAX_PENDING_PAYLOADS = 4
const MAX_PENDING_BYTES = MAX_PENDING_PAYLOADS * MAX_PAYLOAD_BYTES
/** Under load, messages are collected for this long. */
const BATCH_INTERVAL_MS = 10
/** Notifications that can be sent at once after a quiet period; each batch interval allows one more. */
const MAX_BURST = 20

/**
 * Sends messages to other nodes: at once, or in batches while a notification is being sent and, above a rate
 * of 100 notifications per second (token bucket, burst of 20), for at most 10 ms. Always batching would delay
 * most events of a single deployment, which are a few milliseconds apart. Messages that do not fit are
 * replaced by their topic without a payload.
 *
 *   idle ── add ──> sending ── sent, messages pending ──> sending, or waiting for a token ──> sending
 */
export class NotificationBatcher {
  private readonly sendNotifications: (lists: readonly string[]) => Promise<boolean>
  private pending: { topic: string; text: string; bytes: number }[] = []
  private pendingBytes = 0
  private readonly overflowedTopics = new Set<string>()
  private sending: Promise<void> | undefined
  private timer: NodeJS.Timeout | undefined
  /** Notifications that could be sent at `refilledAt`. */
  private tokens = MAX_BURST
  private refilledAt = performance.now()

  /**
   * @param sendNotifications gets the messages of each notification as a list; false: nothing can be sent now
   */
  constructor(sendNotifications: (lists: readonly string[]) => Promise<boolean>) {
    this.sendNotifications = sendNotifications
  }

  /** Never throws; keeps at most 30 kB. */
  add(topic: string, payload: unknown): void {
    this.enqueue(topic, payload)
    this.schedule()
  }

  /** Must be called when sending has become possible again. */
  schedule(): void {
    if (this.sending || this.timer || !this.hasPending()) return
    const waitMs = this.nextTokenInMs()
    if (waitMs <= 0) this.sendPending()
    else {
      this.timer = setTimeout(() => {
        this.timer = undefined
        this.sendPending()
      }, waitMs)
    }
  }

  /** Sends pending messages at once. */
  async flush(): Promise<void> {
    await this.sending
    clearTimeout(this.timer)
    this.timer = undefined
    if (this.hasPending()) this.sendPending()
    await this.sending
  }

  /** Drops pending messages. */
  close(): void {
    clearTimeout(this.timer)
    this.pending = []
    this.overflowedTopics.clear()
  }

  private nextTokenInMs(): number {
    const now = performance.now()
    this.tokens = Math.min(MAX_BURST, this.tokens + (now - this.refilledAt) / BATCH_INTERVAL_MS)
    this.refilledAt = now
    return (1 - this.tokens) * BATCH_INTERVAL_MS
  }

  private hasPending(): boolean {
    return this.pending.length > 0 || this.overflowedTopics.size > 0
  }

  private enqueue(topic: string, payload: unknown): void {
    if (this.overflowedTopics.has(topic)) return
    const text = JSON.stringify([topic, payload])
    const bytes = Buffer.byteLength(text)
    if (bytes <= MAX_PAYLOAD_BYTES && this.pendingBytes + bytes <= MAX_PENDING_BYTES) {
      this.pending.push({ topic, text, bytes })
      this.pendingBytes += bytes
      return
    }
    this.pending = this.pending.filter((message) => message.topic !== topic)
    this.pendingBytes = this.pending.reduce((sum, message) => sum + message.bytes, 0)
    this.overflowedTopics.add(topic)
  }

  private sendPending(): void {
    const texts = [
      ...[...this.overflowedTopics].map((topic) => JSON.stringify([topic])),
      ...this.drainPending(),
    ]
    this.overflowedTopics.clear()
    this.tokens--
    this.sending = this.sendNotifications(toPayloads(texts)).then((sent) => {
      this.sending = undefined
      if (sent) this.schedule()
      // Not repeated if it failed: it may have arrived, and after a reconnect nodes read the state anyway.
    })
  }

  private drainPending(): string[] {
    const texts = this.pending.map(({ text }) => text)
    this.pending = []
    this.pendingBytes = 0
    return texts
  }
}

/** As few lists as possible, each below the limit; a list is the inside of a JSON array. */
function toPayloads(texts: readonly string[]): string[] {
  const lists: string[] = []
  let list = ''
  for (const text of texts) {
    if (list && Buffer.byteLength(list) + Buffer.byteLength(text) + 1 > MAX_PAYLOAD_BYTES) {
      lists.push(list)
      list = ''
    }
    list = list ? `${list},${text}` : text
  }
  return list ? [...lists, list] : lists
}
