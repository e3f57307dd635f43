import { randomUUID } from 'node:crypto'
import type { Socket } from 'node:net'
import type { ExecutionResult } from 'graphql'
import { CloseCode, type Message, MessageType, parseMessage } from 'graphql-ws'
import { type RawData, WebSocket } from 'ws'
import type { Identity, PresentedCredentials } from '../auth/credentials/authenticator.ts'
import type { RequestContext } from '../auth/request-context.ts'
import type { Subject } from '../auth/rights.ts'
import { TooLargeError } from '../errors.ts'
import { toClientError, toClientResult } from '../graphql/error-formatting.ts'
import { JsonLimits } from '../graphql/json-limits.ts'
import { requestScheduler } from '../runtime/fair-scheduler.ts'
import { textFrame } from './frame-batch.ts'
import { FrameWriter } from './frame-writer.ts'

/** How long a client has to answer our close before its socket is cut off. */
const CLOSE_GRACE_MS = 1_000
/** Answers, and pongs to its pings, that a client may have asked for and not read. Events have a bound of their own. */
const MAX_UNSENT_BYTES = 16 * 1024 * 1024

/** Not an error of each operation: that would end them for good, and a client comes back by itself after a close. */
export const SLOW_CONSUMER = {
  code: 1013,
  reason: 'SLOW_CONSUMER: events are read too slowly; come back with your cursor',
}
/** What is longer may take long: it waits for its turn. */
const SHORT_MESSAGE_BYTES = 2 * 1024
/** Messages that arrive together; of more, each such number waits for a turn. */
const MAX_MESSAGES_PER_TURN = 20
/** A control frame from a client has a header of two bytes and a mask of four (RFC 6455, section 5.2). */
const CONTROL_FRAME_BYTES = 6
const ALREADY_SENT = Promise.resolve()
const NO_HEADERS: PresentedCredentials['headers'] = {}
/** What is no message of the subprotocol, or one that only servers send. */
export const INVALID_MESSAGE_REASON = 'Invalid message received'

/** What a client has begun: its subscription, or something that is being executed for it. */
export interface Operation {
  /** The client has completed it, or is gone: nothing more is to be told. */
  end(): void
}

/** All sockets have the same listeners: thousands of closures less. */
export class ConnectionWebSocket extends WebSocket {
  connection?: Connection
}

/** Who is told of what happens to a connection. */
export interface ConnectionListener {
  /** It is for the owner to see that nothing is thrown. */
  onMessage(connection: Connection, message: Message): void
  /** It has been found out who it is. False: they have too many sockets, and this one is being closed. */
  onAuthenticated(connection: Connection, subject: Subject): boolean
  /** What broke it; that it has closed is told too. */
  onError(connection: Connection, error: Error): void
  onClose(connection: Connection): void
}

/**
 * One open socket, and the operations under way on it; to resolvers it is their context. There may be very many: nothing
 * is kept that need not be, and what few need is made when they do.
 */
export class Connection implements RequestContext, PresentedCredentials {
  readonly id = randomUUID()
  readonly writer: FrameWriter
  /** By the ids that the client has given them. */
  readonly operations = new Map<string, Operation>()
  /** How many are being executed, also of those that the client has completed meanwhile. */
  executingCount = 0
  /** Whether it has sent its `connection_init`. */
  isInitialised = false
  /** Seconds that we have waited for that. */
  secondsWithoutInit = 0
  /** Who it is, once that is known. Whoever shows the same shares it. */
  identity: Identity | undefined
  private isClosing = false
  private pingsSinceRead = 0
  private lastBytesRead = 0
  /** Of the stream's bytes, those that belong to a message or control frame that has come to its end. */
  private finishedBytes: number
  /** Seconds for which a message has been coming in. */
  unfinishedSeconds = 0
  /** What waits for its turn, in order. */
  private queuedMessages: RawData[] | undefined
  /** Messages that have arrived in one piece so far. */
  private messagesInRead = 0
  private abortController: AbortController | undefined

  constructor(
    private readonly socket: ConnectionWebSocket,
    /** The stream below the WebSocket, for frames that are made once for many. */
    private readonly stream: Socket,
    /** In which of the seconds of a round it is pinged. */
    readonly pingSecond: number,
    /** What the upgrade came with. Not kept for longer than it takes to look who that is. */
    public headers: PresentedCredentials['headers'],
    /** Where it comes from, as a trusted proxy says; undefined: from the other end of the stream. */
    private readonly forwardedFor: string | undefined,
    readonly listener: ConnectionListener,
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

  /** Whose turn it is in the event loop. */
  private get schedulingKey(): string {
    return this.identity?.subject.id ?? this.address
  }

  /** Aborted when the socket closes. Made when somebody asks: most sockets only subscribe. */
  get signal(): AbortSignal {
    this.abortController ??= new AbortController()
    return this.abortController.signal
  }

  get protocol(): string {
    return this.socket.protocol
  }

  /**
   * A message of this socket's own, behind the frames of this turn. Waits only behind what has not been read yet. What
   * breaks the socket is told by its end.
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

  /** How many pings it has left without a sign of life, such as a pong. */
  get unansweredPings(): number {
    const { bytesRead } = this.stream
    if (bytesRead !== this.lastBytesRead) {
      this.lastBytesRead = bytesRead
      this.pingsSinceRead = 0
    }
    return this.pingsSinceRead
  }

  ping(): void {
    this.pingsSinceRead++
    this.writer.flush()
    if (this.isOpen) this.socket.ping()
  }

  /** A result of an operation. */
  sendNext(operationId: string, result: ExecutionResult): Promise<void> {
    const payload = toClientResult(result)
    return this.send(JSON.stringify({ id: operationId, type: MessageType.Next, payload }))
  }

  /** Its only result. */
  sendNextAndComplete(operationId: string, result: ExecutionResult): Promise<void> {
    void this.sendNext(operationId, result)
    return this.sendComplete(operationId)
  }

  /** It has ended by itself. */
  sendComplete(operationId: string): Promise<void> {
    this.operations.delete(operationId)
    return this.send(JSON.stringify({ id: operationId, type: MessageType.Complete }))
  }

  /** It has ended with errors, or could not begin. */
  sendError(operationId: string, errors: readonly unknown[]): Promise<void> {
    this.operations.delete(operationId)
    const payload = errors.map((error) => toClientError(error))
    return this.send(JSON.stringify({ id: operationId, type: MessageType.Error, payload }))
  }

  /** The client has ended it. */
  onComplete(operationId: string): void {
    const operation = this.operations.get(operationId)
    this.operations.delete(operationId)
    operation?.end()
  }

  handleMessage(data: RawData): void {
    const { bytesRead } = this.stream
    this.messagesInRead = bytesRead === this.finishedBytes ? this.messagesInRead + 1 : 1
    // Of a message behind it in the same piece a few bytes are counted as well.
    this.finishedBytes = bytesRead
    // What comes behind our close is not heard.
    if (!this.isOpen) return
    if (this.queuedMessages) {
      this.queuedMessages.push(data)
    } else if (lengthOf(data) <= SHORT_MESSAGE_BYTES && this.messagesInRead <= MAX_MESSAGES_PER_TURN) {
      this.dispatch(data)
    } else {
      this.queuedMessages = [data]
      void this.dispatchQueued(this.queuedMessages)
    }
  }

  /** Bytes of a message that has not come to its end. */
  get unfinishedBytes(): number {
    return Math.max(0, this.stream.bytesRead - this.finishedBytes)
  }

  /** It may come between the fragments of a message. */
  handleControlFrame(payload: Uint8Array): void {
    this.finishedBytes += CONTROL_FRAME_BYTES + payload.length
  }

  /** Meanwhile no more is read from the stream than has been. */
  private async dispatchQueued(waiting: RawData[]): Promise<void> {
    this.socket.pause()
    while (waiting.length > 0) {
      await new Promise<void>((resolve) => requestScheduler.enqueue(this.schedulingKey, resolve))
      let count = 0
      for (let data = waiting.shift(); data; data = waiting.shift()) {
        if (this.isOpen) this.dispatch(data)
        if (++count === MAX_MESSAGES_PER_TURN || lengthOf(data) > SHORT_MESSAGE_BYTES) break
      }
    }
    this.queuedMessages = undefined
    this.socket.resume()
  }

  private dispatch(data: RawData): void {
    try {
      this.listener.onMessage(this, parse(data))
    } catch (error) {
      this.close(
        CloseCode.BadRequest,
        error instanceof TooLargeError ? error.message : INVALID_MESSAGE_REASON,
      )
    }
  }

  handleClose(): void {
    this.abortController?.abort()
    this.listener.onClose(this)
    const operations = [...this.operations.values()]
    this.operations.clear()
    for (const operation of operations) operation.end()
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
  async closeAndWait(code: number, reason: string): Promise<void> {
    if (this.socket.readyState === this.socket.CLOSED) return
    const closed = new Promise((resolve) => this.socket.once('close', resolve))
    this.close(code, reason)
    await closed
  }

  terminate(): void {
    this.socket.terminate()
  }
}

function onMessage(this: ConnectionWebSocket, data: RawData): void {
  this.connection?.handleMessage(data)
}

function onControlFrame(this: ConnectionWebSocket, payload: Uint8Array): void {
  this.connection?.handleControlFrame(payload)
}

function onClose(this: ConnectionWebSocket): void {
  this.connection?.handleClose()
}

function onError(this: ConnectionWebSocket, error: Error): void {
  if (this.connection) this.connection.listener.onError(this.connection, error)
}

function lengthOf(data: RawData): number {
  return data instanceof Uint8Array ? data.length : 0
}

/** @throws TooLarge, and other errors where it is no message */
function parse(data: RawData): Message {
  // Ours come as one buffer each: that is what `ws` makes of a message unless told otherwise.
  if (!(data instanceof Uint8Array)) throw new Error('A message came in an unexpected form.')
  new JsonLimits().check(data)
  return parseMessage(String(data))
}
