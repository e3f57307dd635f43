import { randomUUID } from 'node:crypto'
import { RawSocket, type RawSocketListener } from './raw-socket.ts'

const SEQUENCE_KEY = Buffer.from('"sequence":')
const CURSOR_KEY = Buffer.from('"cursor":"')
const CURSOR_LENGTH = 16
const ASCII_ZERO = 48

export interface ViewerListener {
  /** Each delivered event that is the next one for its viewer. */
  delivered(viewer: Viewer, sequence: number, bytes: number): void
  /** A repeated event, an event after a gap, or an unexpected message. */
  fault(viewer: Viewer, description: string): void
  closed(viewer: Viewer, code: number): void
}

/**
 * A socket with one subscription. It stores the next sequence number, and the last cursor if it may resume.
 */
export class Viewer implements RawSocketListener {
  readonly index: number
  nextSequence = 0
  /** Of the last event; before the first one, of `connection_ack`, like the page. */
  cursor: string | undefined
  isPaused = false
  isSubscribed = false
  private readonly listener: ViewerListener
  private readonly url: URL
  private readonly query: string
  private readonly keepsCursor: boolean
  private socket: RawSocket | undefined
  private onSubscribed: (() => void) | undefined
  private onFailed: ((error: Error) => void) | undefined

  constructor(audience: ViewerListener, index: number, url: URL, query: string, keepsCursor: boolean) {
    this.listener = audience
    this.index = index
    this.url = url
    this.query = query
    this.keepsCursor = keepsCursor
  }

  /** Resolves once the server has acknowledged the connection and the subscription is sent. */
  connect(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.onSubscribed = resolve
      this.onFailed = reject
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
    const at = buffer.indexOf(SEQUENCE_KEY, start)
    if (at < 0 || at >= end) {
      this.handleControlMessage(buffer.toString('utf8', start, end))
      return
    }
    let sequence = 0
    for (let i = at + SEQUENCE_KEY.length; i < end; i++) {
      const digit = buffer[i]! - ASCII_ZERO
      if (digit < 0 || digit > 9) break
      sequence = sequence * 10 + digit
    }
    if (sequence !== this.nextSequence) {
      this.listener.fault(this, `got event ${sequence}, expected ${this.nextSequence}`)
      if (sequence < this.nextSequence) return
    }
    this.nextSequence = sequence + 1
    if (this.keepsCursor) {
      const cursor = buffer.indexOf(CURSOR_KEY, start) + CURSOR_KEY.length
      this.cursor = buffer.toString('latin1', cursor, cursor + CURSOR_LENGTH)
    }
    this.listener.delivered(this, sequence, end - start)
  }

  closed(code: number): void {
    this.isSubscribed = false
    this.onFailed?.(new Error(`A viewer was closed with ${code} before it was connected.`))
    this.onFailed = undefined
    this.listener.closed(this, code)
  }

  private handleControlMessage(text: string): void {
    const message = JSON.parse(text) as { type: string; payload?: { cursor?: string } }
    if (message.type === 'connection_ack') {
      this.cursor ??= message.payload?.cursor
      const payload = { query: this.query, variables: this.cursor ? { after: this.cursor } : {} }
      this.socket?.send({ id: randomUUID(), type: 'subscribe', payload })
      this.isSubscribed = true
      this.onFailed = undefined
      this.onSubscribed?.()
    } else if (message.type === 'ping') {
      this.socket?.send({ type: 'pong' })
    } else if (message.type !== 'pong') {
      this.listener.fault(this, text.slice(0, 300))
    }
  }
}
