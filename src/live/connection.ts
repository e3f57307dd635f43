import { randomUUID } from 'node:crypto'
import type { Duplex } from 'node:stream'
import type { WebSocket } from 'ws'
import type { Identity, Shown } from '../auth/authenticator.ts'
import { FrameWriter } from './frame-writer.ts'

/** How long a client has to answer our close before its socket is cut off. */
const CLOSE_GRACE_MS = 1_000
/** Answers, and pongs to its pings, that a client may have asked for and not read. Events have a bound of their own. */
const MOST_UNSENT_BYTES = 16 * 1024 * 1024

export const TOO_SLOW = { code: 1013, reason: 'Too slow; come back with your cursor' }

/** One open socket. */
export class Connection {
  readonly id = randomUUID()
  readonly writer: FrameWriter
  /** Pings since its last pong. */
  unansweredPings = 0
  /** Who it is, once that is known. Whoever shows the same shares it. */
  identity: Identity | undefined
  private controller: AbortController | undefined
  private isHolding = false
  private isClosing = false
  private held: string[] = []

  constructor(
    private readonly socket: WebSocket,
    /** The stream below the WebSocket, for frames that are made once for many. */
    stream: Duplex,
    /** In which of the seconds of a round it is pinged. */
    readonly pingSecond: number,
    /** What the upgrade came with. Not kept for longer than it takes to look who that is. */
    private shown: Shown,
  ) {
    this.writer = new FrameWriter(stream)
    socket.on('pong', () => {
      this.unansweredPings = 0
    })
  }

  /** Aborted when the socket closes. Made when somebody asks: most sockets only subscribe. */
  get signal(): AbortSignal {
    this.controller ??= new AbortController()
    return this.controller.signal
  }

  get protocol(): string {
    return this.socket.protocol
  }

  get isOpen(): boolean {
    return this.socket.readyState === this.socket.OPEN
  }

  get address(): string {
    return this.shown.address
  }

  takeShown(): Shown {
    const { shown } = this
    this.shown = { headers: {}, address: shown.address }
    return shown
  }

  /** A message of graphql-ws's own, behind the frames of this turn. What breaks the socket is told by its end. */
  send(message: string): Promise<void> {
    this.writer.flush()
    if (this.writer.unsentBytes > MOST_UNSENT_BYTES) this.close(TOO_SLOW.code, TOO_SLOW.reason)
    if (!this.isOpen) return Promise.resolve()
    return new Promise((resolve) => this.socket.send(message, () => resolve()))
  }

  ping(): void {
    this.unansweredPings++
    this.writer.flush()
    if (this.socket.readyState === this.socket.OPEN) this.socket.ping()
  }

  /**
   * Passes on messages one after the other, until we close. After a `complete` the next one waits for a turn: graphql-ws
   * ends the operation in that time, and would take a new one that uses the same id for the old one.
   */
  onMessage(receive: (message: string) => void): void {
    const pass = (message: string) => {
      if (!this.isOpen) return
      receive(message)
      if (message.includes('"complete"')) this.holdUntilNextTurn(pass)
    }
    this.socket.on('message', (data) => {
      const message = String(data)
      if (this.isHolding) this.held.push(message)
      else pass(message)
    })
  }

  onClose(closed: (code: number, reason: string) => void): void {
    this.socket.once('close', (code, reason) => {
      // What is held would begin operations that nobody ends any more.
      this.held = []
      this.controller?.abort()
      closed(code, String(reason))
    })
  }

  /** Says goodbye, and does not wait for an answer for long. */
  close(code: number, reason: string): void {
    if (this.isClosing || this.socket.readyState === this.socket.CLOSED) return
    this.isClosing = true
    this.writer.end()
    const cutOff = setTimeout(() => this.socket.terminate(), CLOSE_GRACE_MS)
    this.socket.once('close', () => clearTimeout(cutOff))
    this.socket.close(code, reason)
  }

  /** The same; resolves when the socket is closed. */
  async end(code: number, reason: string): Promise<void> {
    if (this.socket.readyState === this.socket.CLOSED) return
    const closed = new Promise((resolve) => this.socket.once('close', resolve))
    this.close(code, reason)
    await closed
  }

  terminate(): void {
    this.socket.terminate()
  }

  private holdUntilNextTurn(pass: (message: string) => void): void {
    this.isHolding = true
    // No more is read than what has arrived already; it cannot pile up.
    this.socket.pause()
    setImmediate(() => {
      this.isHolding = false
      while (!this.isHolding && this.held.length > 0) pass(this.held.shift() ?? '')
      if (!this.isHolding) this.socket.resume()
    })
  }
}
