import { randomUUID } from 'node:crypto'
import type { Socket } from 'node:net'
import { type RawData, WebSocket } from 'ws'
import type { Identity, Shown } from '../auth/authenticator.ts'
import type { Subject } from '../auth/rights.ts'
import type { RequestContext } from '../request-context.ts'
import { textFrame } from './frame-batch.ts'
import { FrameWriter } from './frame-writer.ts'

/** How long a client has to answer our close before its socket is cut off. */
const CLOSE_GRACE_MS = 1_000
/** Answers, and pongs to its pings, that a client may have asked for and not read. Events have a bound of their own. */
const MOST_UNSENT_BYTES = 16 * 1024 * 1024

/** Not an error of each operation: that would end them for good, and a client comes back by itself after a close. */
export const TOO_SLOW = {
  code: 1013,
  reason: 'SLOW_CONSUMER: events are read too slowly; come back with your cursor',
}
const SENT = Promise.resolve()
const NO_HEADERS: Shown['headers'] = {}
const NOT_UNDERSTOOD = { code: 4400, reason: 'Invalid message received' }
const CLIENT_MESSAGES = new Set(['connection_init', 'ping', 'pong', 'subscribe', 'complete'])

/** What graphql-ws takes to be a message, and looks at more closely. */
interface ClientMessage {
  type: string
}
type Receive = (message: ClientMessage) => Promise<void>

/** All sockets have the same listeners: thousands of closures less. */
export class ViewerSocket extends WebSocket {
  connection?: Connection
}

/** Who is told of what happens to a connection. */
export interface ConnectionOwner {
  /** A message could not be handled. */
  failed(connection: Connection, error: unknown): void
  /** What broke it; that it has closed is told too. */
  broke(connection: Connection, error: Error): void
  closed(connection: Connection): void
  /** A ping of the subprotocol, to be answered. */
  pinged(connection: Connection, payload: Record<string, unknown> | undefined): Promise<void>
}

/**
 * One open socket; to graphql-ws its transport, to resolvers their context. There may be very many: nothing is kept that
 * need not be, and what few need is made when they do.
 */
export class Connection implements RequestContext, Shown {
  readonly id = randomUUID()
  readonly writer: FrameWriter
  /** Whether it has sent its `connection_init`. */
  isInitialised = false
  /** Seconds that we have waited for that. */
  secondsWaited = 0
  /** Who it is, once that is known. Whoever shows the same shares it. */
  identity: Identity | undefined
  private isClosing = false
  private pings = 0
  private bytesHeard = 0
  private controller: AbortController | undefined
  private receive: Receive | undefined
  private leave: ((code: number, reason: string) => Promise<void>) | undefined
  private isHolding = false
  private held: RawData[] | undefined

  constructor(
    private readonly socket: ViewerSocket,
    /** The stream below the WebSocket, for frames that are made once for many. */
    private readonly stream: Socket,
    /** In which of the seconds of a round it is pinged. */
    readonly pingSecond: number,
    /** What the upgrade came with. Not kept for longer than it takes to look who that is. */
    public headers: Shown['headers'],
    /** Where it comes from, as a trusted proxy says; undefined: from the other end of the stream. */
    private readonly forwardedFor: string | undefined,
    readonly owner: ConnectionOwner,
  ) {
    this.writer = new FrameWriter(stream)
    socket.connection = this
    socket.on('message', onMessage)
    socket.on('error', onError)
    socket.on('close', onClose)
  }

  /** Once it is known who it is. */
  forgetHeaders(): void {
    this.headers = NO_HEADERS
  }

  get connectionId(): string {
    return this.id
  }

  get subject(): Subject {
    if (!this.identity) throw new Error('Nobody has looked who is on this socket.')
    return this.identity.subject
  }

  get credential(): Identity['credential'] {
    return this.identity?.credential
  }

  get isOpen(): boolean {
    return this.socket.readyState === this.socket.OPEN
  }

  /** Asked of the operating system only when somebody wants to know. */
  get address(): string {
    return this.forwardedFor ?? this.stream.remoteAddress ?? 'unknown'
  }

  /** Aborted when the socket closes. Made when somebody asks: most sockets only subscribe. */
  get signal(): AbortSignal {
    this.controller ??= new AbortController()
    return this.controller.signal
  }

  get protocol(): string {
    return this.socket.protocol
  }

  /**
   * A message of graphql-ws's own, behind the frames of this turn. Waits only behind what has not been read yet. What
   * breaks the socket is told by its end.
   */
  send(message: string): Promise<void> {
    this.writer.flush()
    if (this.writer.unsentBytes > MOST_UNSENT_BYTES) this.close(TOO_SLOW.code, TOO_SLOW.reason)
    if (!this.isOpen) return SENT
    const frame = textFrame(message)
    if (this.stream.writableNeedDrain) {
      return new Promise((resolve) => this.stream.write(frame, () => resolve()))
    }
    this.stream.write(frame)
    return SENT
  }

  /** How many pings it has left without a sign of life, such as a pong. */
  get unansweredPings(): number {
    const { bytesRead } = this.stream
    if (bytesRead !== this.bytesHeard) {
      this.bytesHeard = bytesRead
      this.pings = 0
    }
    return this.pings
  }

  ping(): void {
    this.pings++
    this.writer.flush()
    if (this.isOpen) this.socket.ping()
  }

  onMessage(receive: (text: string) => Promise<void>): void {
    // graphql-ws parses what is text, and takes what is parsed as it is; its types tell only of the former.
    this.receive = receive as (message: unknown) => Promise<void>
  }

  onPing(payload: Record<string, unknown> | undefined): Promise<void> {
    return this.owner.pinged(this, payload)
  }

  onClose(leave: (code: number, reason: string) => Promise<void>): void {
    this.leave = leave
  }

  /**
   * Passes on messages one after the other. After a `complete` the next one waits for a turn: graphql-ws ends the
   * operation in that time, and would take a new one that uses the same id for the old one.
   */
  take(data: RawData): void {
    // What comes behind our close is not heard.
    if (!this.isOpen) return
    if (this.isHolding) {
      this.held ??= []
      this.held.push(data)
      return
    }
    const message = parse(String(data))
    if (!message) {
      this.close(NOT_UNDERSTOOD.code, NOT_UNDERSTOOD.reason)
      return
    }
    this.receive?.(message).catch((error: unknown) => this.owner.failed(this, error))
    if (message.type === 'complete') this.holdUntilNextTurn()
  }

  closed(code: number, reason: string): void {
    // What is held would begin operations that nobody ends any more.
    this.held = undefined
    this.receive = undefined
    this.controller?.abort()
    this.owner.closed(this)
    void this.leave?.(code, reason)
  }

  /** Says goodbye, and does not wait for an answer for long. */
  close(code = 1000, reason = ''): void {
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

  private holdUntilNextTurn(): void {
    this.isHolding = true
    // No more is read than what has arrived already; it cannot pile up.
    this.socket.pause()
    setImmediate(() => {
      this.isHolding = false
      while (!this.isHolding) {
        const data = this.held?.shift()
        if (data === undefined) break
        this.take(data)
      }
      if (!this.isHolding) this.socket.resume()
    })
  }
}

function onMessage(this: ViewerSocket, data: RawData): void {
  this.connection?.take(data)
}

function onClose(this: ViewerSocket, code: number, reason: Buffer): void {
  this.connection?.closed(code, String(reason))
}

function onError(this: ViewerSocket, error: Error): void {
  if (this.connection) this.connection.owner.broke(this.connection, error)
}

/** Parsed here, since graphql-ws would keep the text for as long as an operation lives. */
function parse(text: string): ClientMessage | undefined {
  try {
    const message = JSON.parse(text) as ClientMessage | null
    return CLIENT_MESSAGES.has(message?.type ?? '') ? (message as ClientMessage) : undefined
  } catch {
    return undefined
  }
}
