/** Below the server's limit: 7,999 bytes are taken, 8,000 fail (NOTIFY in the PostgreSQL manual; measured). */
const MAX_PAYLOAD_BYTES = 7_500
/** What waits to be sent beyond this many payloads' worth is folded into one "look" for each topic. */
const MAX_PENDING_PAYLOADS = 4
const MAX_PENDING_BYTES = MAX_PENDING_PAYLOADS * MAX_PAYLOAD_BYTES
/** Under load, messages are gathered for this long. */
const BATCH_INTERVAL_MS = 10
/** So many notifications may go out at once after a quiet time; each GATHER_MS allows one more. */
const MAX_BURST = 20

/**
 * What is on its way to other nodes. Sent at once, or gathered: while a notification is under way, and, when there were
 * many of late (more than 20, and 100 a second), for 10 ms at most. A deployment's own events come some milliseconds
 * apart; waiting 10 ms after each would delay most of them. What does not fit is folded: its topic is named without a
 * payload, which means "look".
 *
 *   idle ── add ──> sending ── sent, something waits ──> sending, or waiting for its allowance ──> sending
 */
export class NotificationBatcher {
  private readonly sendNotifications: (messages: readonly string[]) => Promise<boolean>
  private pending: { topic: string; text: string; bytes: number }[] = []
  private pendingBytes = 0
  private readonly overflowedTopics = new Set<string>()
  private sending: Promise<void> | undefined
  private timer: NodeJS.Timeout | undefined
  /** Notifications that may go out now, as of `#countedAt`. */
  private tokens = MAX_BURST
  private refilledAt = performance.now()

  /** @param send takes lists of messages, each list for one notification; false: nothing can be sent at the moment */
  constructor(send: (messages: readonly string[]) => Promise<boolean>) {
    this.sendNotifications = send
  }

  /** Never fails, and keeps at most 30 kB. */
  add(topic: string, payload: unknown): void {
    this.enqueue(topic, payload)
    this.schedule()
  }

  /** To be called when sending has become possible again. */
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

  /** Sends what waits, without waiting for more. */
  async flush(): Promise<void> {
    await this.sending
    clearTimeout(this.timer)
    this.timer = undefined
    if (this.hasPending()) this.sendPending()
    await this.sending
  }

  /** What waits is dropped. */
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
      // Others will look when they notice; what was said is not repeated, for it may have arrived.
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
  const parts: string[] = []
  let part = ''
  for (const text of texts) {
    if (part && Buffer.byteLength(part) + Buffer.byteLength(text) + 1 > MAX_PAYLOAD_BYTES) {
      parts.push(part)
      part = ''
    }
    part = part ? `${part},${text}` : text
  }
  return part ? [...parts, part] : parts
}
