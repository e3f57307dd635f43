/** Below the server's limit: 7,999 bytes are taken, 8,000 fail (NOTIFY in the PostgreSQL manual; measured). */
const MOST_PAYLOAD_BYTES = 7_500
/** What waits to be sent beyond this many payloads' worth is folded into one "look" for each topic. */
const MOST_PAYLOADS = 4
const MOST_WAITING_BYTES = MOST_PAYLOADS * MOST_PAYLOAD_BYTES
/** Under load, messages are gathered for this long. */
const GATHER_MS = 10
/** So many notifications may go out at once after a quiet time; each GATHER_MS allows one more. */
const MOST_AT_ONCE = 20

/**
 * What is on its way to other nodes. Sent at once, or gathered: while a notification is under way, and, when there were
 * many of late (more than 20, and 100 a second), for 10 ms at most. A deployment's own events come some milliseconds
 * apart; waiting 10 ms after each would delay most of them. What does not fit is folded: its topic is named without a
 * payload, which means "look".
 *
 *   idle ── add ──> sending ── sent, something waits ──> sending, or waiting for its allowance ──> sending
 */
export class Outbox {
  readonly #send: (messages: readonly string[]) => Promise<boolean>
  #waiting: { topic: string; text: string; bytes: number }[] = []
  #waitingBytes = 0
  readonly #folded = new Set<string>()
  #sending: Promise<void> | undefined
  #timer: NodeJS.Timeout | undefined
  /** Notifications that may go out now, as of `#countedAt`. */
  #allowance = MOST_AT_ONCE
  #countedAt = performance.now()

  /** @param send takes lists of messages, each list for one notification; false: nothing can be sent at the moment */
  constructor(send: (messages: readonly string[]) => Promise<boolean>) {
    this.#send = send
  }

  /** Never fails, and keeps at most 30 kB. */
  add(topic: string, payload: unknown): void {
    this.#keep(topic, payload)
    this.schedule()
  }

  /** To be called when sending has become possible again. */
  schedule(): void {
    if (this.#sending || this.#timer || !this.#hasAny()) return
    const waitMs = this.#allowanceInMs()
    if (waitMs <= 0) this.#sendAll()
    else {
      this.#timer = setTimeout(() => {
        this.#timer = undefined
        this.#sendAll()
      }, waitMs)
    }
  }

  /** Sends what waits, without waiting for more. */
  async flush(): Promise<void> {
    await this.#sending
    clearTimeout(this.#timer)
    this.#timer = undefined
    if (this.#hasAny()) this.#sendAll()
    await this.#sending
  }

  /** What waits is dropped. */
  close(): void {
    clearTimeout(this.#timer)
    this.#waiting = []
    this.#folded.clear()
  }

  #allowanceInMs(): number {
    const now = performance.now()
    this.#allowance = Math.min(MOST_AT_ONCE, this.#allowance + (now - this.#countedAt) / GATHER_MS)
    this.#countedAt = now
    return (1 - this.#allowance) * GATHER_MS
  }

  #hasAny(): boolean {
    return this.#waiting.length > 0 || this.#folded.size > 0
  }

  #keep(topic: string, payload: unknown): void {
    if (this.#folded.has(topic)) return
    const text = JSON.stringify([topic, payload])
    const bytes = Buffer.byteLength(text)
    if (bytes <= MOST_PAYLOAD_BYTES && this.#waitingBytes + bytes <= MOST_WAITING_BYTES) {
      this.#waiting.push({ topic, text, bytes })
      this.#waitingBytes += bytes
      return
    }
    this.#waiting = this.#waiting.filter((message) => message.topic !== topic)
    this.#waitingBytes = this.#waiting.reduce((sum, message) => sum + message.bytes, 0)
    this.#folded.add(topic)
  }

  #sendAll(): void {
    const texts = [...[...this.#folded].map((topic) => JSON.stringify([topic])), ...this.#takeWaiting()]
    this.#folded.clear()
    this.#allowance--
    this.#sending = this.#send(inParts(texts)).then((sent) => {
      this.#sending = undefined
      if (sent) this.schedule()
      // Others will look when they notice; what was said is not repeated, for it may have arrived.
    })
  }

  #takeWaiting(): string[] {
    const texts = this.#waiting.map(({ text }) => text)
    this.#waiting = []
    this.#waitingBytes = 0
    return texts
  }
}

/** As few lists as possible, each below the limit; a list is the inside of a JSON array. */
function inParts(texts: readonly string[]): string[] {
  const parts: string[] = []
  let part = ''
  for (const text of texts) {
    if (part && Buffer.byteLength(part) + Buffer.byteLength(text) + 1 > MOST_PAYLOAD_BYTES) {
      parts.push(part)
      part = ''
    }
    part = part ? `${part},${text}` : text
  }
  return part ? [...parts, part] : parts
}
