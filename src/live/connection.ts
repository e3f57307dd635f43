import { randomUUID } from 'node:crypto'
import type { Socket } from 'node:net'
import { type RawData, WebSocket } from 'ws'
import type { Identity, PresentedCredentials } from '../auth/credentials/authenticator.ts'
import type { RequestContext } from '../auth/principal.ts'
import type { Subject } from '../auth/rights.ts'
import { requestScheduler } from '../runtime/fair-scheduler.ts'
import { textFrame } from './frame-batch.ts'
import { FrameWriter } from './frame-writer.ts'

/** How long a client has to answer a close before its socket is terminated. */
const CLOSE_GRACE_MS = 1_000
/** Responses and pongs that a client has requested but not read. Events have their own bound. */
const MAX_UNSENT_BYTES = 16 * 1024 * 1024

/** A close, not an error per operation: errors are final to clients; after this close they reconnect. */
export const SLOW_CONSUMER = {
  code: 1013,
  reason: 'SLOW_CONSUMER: events are read too slowly; reconnect with your last cursor',
}
/** Longer messages can take long to handle, so they wait for their turn. */
const SHORT_MESSAGE_BYTES = 2 * 1024
/** Of short messages that arrive together, this many are handled in one turn. */
const MAX_MESSAGES_PER_TURN = 20
/** A control frame from a client has a header of two bytes and a mask of four (RFC 6455, section 5.2). */
const CONTROL_FRAME_BYTES = 6
const ALREADY_SENT = Promise.resolve()
const NO_HEADERS: PresentedCredentials['headers'] = {}

/** What a client has started: a subscription, or a query or mutation that is being executed. */
export interface Operation {
  /** The client has completed it, or its socket has closed: nothing more is sent. */
  end(): void
}

/** All sockets share the same listeners, which saves thousands of closures. */
export class ConnectionWebSocket extends WebSocket {
  connection?: Connection
}

/** Receives the events of all connections. Must not throw. */
export interface ConnectionListener {
  onMessage(connection: Connection, message: Buffer): void
  /** Returns false if the subject has too many sockets: then this one is being closed. */
  onAuthenticated(connection: Connection, subject: Subject): boolean
  onOperationFailed(connection: Connection, operationId: string, error: unknown): void
  /** `onClose` follows. */
  onError(connection: Connection, error: Error): void
  onClose(connection: Connection): void
}

/**
 * One open socket and its operations; to resolvers, the context of the request. There can be very many, so
 * nothing unneeded is kept, and what few connections need is created on first use.
 */
export class Connection implements RequestContext, PresentedCredentials {
  readonly id = randomUUID()
  readonly writer: FrameWriter
  /** By the ids that the client has chosen. */
  readonly operations = new Map<string, Operation>()
  /** How many are being executed, including those that the client has completed since they started. */
  executingCount = 0
  /** Whether the client has sent `connection_init`. */
  isInitialised = false
  /** Seconds without `connection_init`. */
  secondsWithoutInit = 0
  /** Seconds since the current incomplete message began to arrive. */
  unfinishedSeconds = 0
  /**
   * Undefined until the client is authenticated. Shared by all sockets that presented the same credential.
   */
  identity: Identity | undefined
  private isClosing = false
  private pingsSinceRead = 0
  private lastBytesRead = 0
  /** How many of the stream's bytes belong to complete messages and control frames. */
  private finishedBytes: number
  /** Messages that wait for their turn, in order. */
  private queuedMessages: Buffer[] | undefined
  /** Messages that have arrived in one read so far. */
  private messagesInRead = 0
  private abortController: AbortController | undefined

  constructor(
    private readonly socket: ConnectionWebSocket,
    /** The stream below the WebSocket, for frames that are composed once for many sockets. */
    private readonly stream: Socket,
    /** The second of each ping interval in which this socket is pinged. */
    readonly pingSecond: number,
    /** The headers of the upgrade, kept until the client is authenticated. */
    public headers: PresentedCredentials['headers'],
    /** The client's address according to a trusted proxy; undefined: the remote address of the stream. */
    private readonly forwardedFor: string | undefined,
    private readonly listener: ConnectionListener,
  ) {
    this.writer = new FrameWriter(stream)
    socket.connection = this
    this.finishedBytes = stream.bytesRead
    socket.on('message', onMessage)
    socket.on('ping', onControlFrame)
    socket.on('pong', onControlFrame)
    socket.on('error', onError)
    socket.on('close', onClose)
  }

  get connectionId(): string {
    return this.id
  }

  get subject(): Subject {
    if (!this.identity) throw new Error('The connection is not authenticated.')
    return this.identity.subject
  }

  get credential(): Identity['credential'] {
    return this.identity?.credential
  }

  get isOpen(): boolean {
    return this.socket.readyState === this.socket.OPEN
  }

  /** Read from the operating system on demand. */
  get address(): string {
    return this.forwardedFor ?? this.stream.remoteAddress ?? 'unknown'
  }

  /** Aborted when the socket closes. Created on first use: most sockets only subscribe. */
  get signal(): AbortSignal {
    this.abortController ??= new AbortController()
    return this.abortController.signal
  }

  get protocol(): string {
    return this.socket.protocol
  }

  /** Bytes of a message that has not arrived completely. */
  get unfinishedBytes(): number {
    return Math.max(0, this.stream.bytesRead - this.finishedBytes)
  }

  /** How many pings were sent since the client last sent anything. */
  get unansweredPings(): number {
    const { bytesRead } = this.stream
    if (bytesRead !== this.lastBytesRead) {
      this.lastBytesRead = bytesRead
      this.pingsSinceRead = 0
    }
    return this.pingsSinceRead
  }

  /** Returns false if the socket is closing, for example because its subject has too many. */
  completeAuthentication(subject: Subject): boolean {
    this.headers = NO_HEADERS
    return this.isOpen && this.listener.onAuthenticated(this, subject)
  }

  /** The client has completed an operation. */
  onComplete(operationId: string): void {
    const operation = this.operations.get(operationId)
    this.operations.delete(operationId)
    operation?.end()
  }

  /** An operation has failed after it was started. */
  onOperationFailed(operationId: string, error: unknown): void {
    this.listener.onOperationFailed(this, operationId, error)
  }

  /**
   * Sends a message to this socket only, after the frames of this turn. Resolves at once or, while the client
   * does not read, when the message has been written. Never rejects: a broken socket closes.
   */
  send(message: string): Promise<void> {
    this.writer.flush()
    if (this.writer.unsentBytes > MAX_UNSENT_BYTES) this.close(SLOW_CONSUMER.code, SLOW_CONSUMER.reason)
    if (!this.isOpen) return ALREADY_SENT
    const frame = textFrame(message)
    if (this.stream.writableNeedDrain) {
      return new Promise((resolve) => this.stream.write(frame, () => resolve()))
    }
    this.stream.write(frame)
    return ALREADY_SENT
  }

  ping(): void {
    this.pingsSinceRead++
    this.writer.flush()
    if (this.isOpen) this.socket.ping()
  }

  /** Closes the socket; terminates it if the client does not answer the close in time. */
  close(code = 1000, reason = ''): void {
    if (this.isClosing || this.socket.readyState === this.socket.CLOSED) return
    this.isClosing = true
    this.writer.end()
    const terminateTimer = setTimeout(() => this.socket.terminate(), CLOSE_GRACE_MS)
    this.socket.once('close', () => clearTimeout(terminateTimer))
    this.socket.close(code, reason)
  }

  /** Like `close`; resolves when the socket is closed. */
  async closeAndWait(code: number, reason: string): Promise<void> {
    if (this.socket.readyState === this.socket.CLOSED) return
    const closed = new Promise((resolve) => this.socket.once('close', resolve))
    this.close(code, reason)
    await closed
  }

  terminate(): void {
    this.socket.terminate()
  }

  /** Called by the socket's listeners, as are the next three methods. */
  handleMessage(message: Buffer): void {
    const { bytesRead } = this.stream
    this.messagesInRead = bytesRead === this.finishedBytes ? this.messagesInRead + 1 : 1
    // Includes a few bytes of a message that follows in the same read.
    this.finishedBytes = bytesRead
    // Messages that arrive after the close was sent are dropped.
    if (!this.isOpen) return
    if (this.queuedMessages) {
      this.queuedMessages.push(message)
    } else if (message.length <= SHORT_MESSAGE_BYTES && this.messagesInRead <= MAX_MESSAGES_PER_TURN) {
      this.listener.onMessage(this, message)
    } else {
      this.queuedMessages = [message]
      void this.handleQueued(this.queuedMessages)
    }
  }

  /** A control frame may arrive between the fragments of a message. */
  handleControlFrame(payload: Uint8Array): void {
    this.finishedBytes += CONTROL_FRAME_BYTES + payload.length
  }

  handleError(error: Error): void {
    this.listener.onError(this, error)
  }

  handleClose(): void {
    this.abortController?.abort()
    this.listener.onClose(this)
    const operations = [...this.operations.values()]
    this.operations.clear()
    for (const operation of operations) operation.end()
  }

  /** Until they are handled, nothing more is read from the stream. */
  private async handleQueued(messages: Buffer[]): Promise<void> {
    this.socket.pause()
    while (messages.length > 0) {
      await new Promise<void>((resolve) => requestScheduler.enqueue(this.schedulingKey, resolve))
      let count = 0
      for (let message = messages.shift(); message; message = messages.shift()) {
        if (this.isOpen) this.listener.onMessage(this, message)
        if (++count === MAX_MESSAGES_PER_TURN || message.length > SHORT_MESSAGE_BYTES) break
      }
    }
    this.queuedMessages = undefined
    this.socket.resume()
  }

  /** Its messages use the event-loop share of this subject or, before authentication, address. */
  private get schedulingKey(): string {
    return this.identity?.subject.id ?? this.address
  }
}

function onMessage(this: ConnectionWebSocket, data: RawData): void {
  // `ws` delivers every message as one buffer, unless configured otherwise.
  if (data instanceof Uint8Array) this.connection?.handleMessage(data)
}

function onControlFrame(this: ConnectionWebSocket, payload: Uint8Array): void {
  this.connection?.handleControlFrame(payload)
}

function onClose(this: ConnectionWebSocket): void {
  this.connection?.handleClose()
}

function onError(this: ConnectionWebSocket, error: Error): void {
  this.connection?.handleError(error)
}
