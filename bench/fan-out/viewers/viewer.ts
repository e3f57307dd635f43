import { randomUUID } from 'node:crypto'
import { RawSocket, type RawSocketListener } from './raw-socket.ts'

const SEQUENCE = Buffer.from('"sequence":')
const CURSOR = Buffer.from('"cursor":"')
const CURSOR_LENGTH = 16
const ZERO = 48

export interface Audience {
  /** Each delivered event that is the next one for its viewer. */
  delivered(viewer: Viewer, sequence: number, bytes: number): void
  /** An event that the viewer has had, or one before which some are missing; or an answer that is none. */
  fault(viewer: Viewer, what: string): void
  closed(viewer: Viewer, code: number): void
}

/** One who watches: a socket with one subscription. It keeps a number, and the last cursor if it is to resume. */
export class Viewer implements RawSocketListener {
  readonly index: number
  nextSequence = 0
  /** Of the last event; before the first one, what the server's acknowledgement said, as the page does it. */
  cursor: string | undefined
  isPaused = false
  isSubscribed = false
  private readonly audience: Audience
  private readonly url: URL
  private readonly query: string
  private readonly keepsCursor: boolean
  private socket: RawSocket | undefined
  private subscribed: (() => void) | undefined
  private failed: ((error: Error) => void) | undefined

  constructor(audience: Audience, index: number, url: URL, query: string, keepsCursor: boolean) {
    this.audience = audience
    this.index = index
    this.url = url
    this.query = query
    this.keepsCursor = keepsCursor
  }

  /** Resolves once the server has acknowledged the connection and the subscription is sent. */
  connect(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.subscribed = resolve
      this.failed = reject
      this.socket = new RawSocket(this.url, this)
    })
  }

  pause(): void {
    this.isPaused = true
    this.socket?.pause()
  }

  resume(): void {
    this.isPaused = false
    this.socket?.resume()
  }

  cut(): void {
    this.socket?.cut()
  }

  opened(): void {
    this.socket?.send({ type: 'connection_init', payload: {} })
  }

  text(buffer: Buffer, start: number, end: number): void {
    const at = buffer.indexOf(SEQUENCE, start)
    if (at < 0 || at >= end) {
      this.control(buffer.toString('utf8', start, end))
      return
    }
    let sequence = 0
    for (let i = at + SEQUENCE.length; i < end; i++) {
      const digit = buffer[i]! - ZERO
      if (digit < 0 || digit > 9) break
      sequence = sequence * 10 + digit
    }
    if (sequence !== this.nextSequence) {
      this.audience.fault(this, `got event ${sequence}, expected ${this.nextSequence}`)
      if (sequence < this.nextSequence) return
    }
    this.nextSequence = sequence + 1
    if (this.keepsCursor) {
      const cursor = buffer.indexOf(CURSOR, start) + CURSOR.length
      this.cursor = buffer.toString('latin1', cursor, cursor + CURSOR_LENGTH)
    }
    this.audience.delivered(this, sequence, end - start)
  }

  closed(code: number): void {
    this.isSubscribed = false
    this.failed?.(new Error(`A viewer was refused or closed with ${code} before it was connected.`))
    this.failed = undefined
    this.audience.closed(this, code)
  }

  private control(text: string): void {
    const message = JSON.parse(text) as { type: string; payload?: { cursor?: string } }
    if (message.type === 'connection_ack') {
      this.cursor ??= message.payload?.cursor
      const payload = { query: this.query, variables: this.cursor ? { after: this.cursor } : {} }
      this.socket?.send({ id: randomUUID(), type: 'subscribe', payload })
      this.isSubscribed = true
      this.failed = undefined
      this.subscribed?.()
    } else if (message.type === 'ping') {
      this.socket?.send({ type: 'pong' })
    } else if (message.type !== 'pong') {
      this.audience.fault(this, text.slice(0, 300))
    }
  }
}
