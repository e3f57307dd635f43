import { randomUUID } from 'node:crypto'
import type { Socket } from 'node:net'
import type { ExecutionResult } from 'graphql'
import { CloseCode, type Message, MessageType, parseMessage } from 'graphql-ws'
import { type RawData, WebSocket } from 'ws'
import type { Identity, Shown } from '../auth/credentials/authenticator.ts'
import type { RequestContext } from '../auth/request-context.ts'
import type { Subject } from '../auth/rights.ts'
import { TooLarge } from '../errors.ts'
import { forClient, resultForClient } from '../graphql/client-errors.ts'
import { JsonLimits } from '../graphql/json-limits.ts'
import { turns } from '../runtime/turns.ts'
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
/** What is longer may take long: it waits for its turn. */
const SHORT_MESSAGE_BYTES = 2 * 1024
/** Messages that arrive together; of more, each such number waits for a turn. */
const MESSAGES_PER_TURN = 20
/** A control frame from a client has a header of two bytes and a mask of four (RFC 6455, section 5.2). */
const CONTROL_FRAME_BYTES = 6
const SENT = Promise.resolve()
const NO_HEADERS: Shown['headers'] = {}
/** What is no message of the subprotocol, or one that only servers send. */
export const NOT_UNDERSTOOD = 'Invalid message received'

/** What a client has begun: its subscription, or something that is being executed for it. */
export interface Operation {
  /** The client has completed it, or is gone: nothing more is to be told. */
  end(): void
}

/** All sockets have the same listeners: thousands of closures less. */
export class ViewerSocket extends WebSocket {
  connection?: Connection
}

/** Who is told of what happens to a connection. */
export interface ConnectionOwner {
  /** It is for the owner to see that nothing is thrown. */
  received(connection: Connection, message: Message): void
  /** It has been found out who it is. False: they have too many sockets, and this one is being closed. */
  identified(connection: Connection, subject: Subject): boolean
  /** What broke it; that it has closed is told too. */
  broke(connection: Connection, error: Error): void
  closed(connection: Connection): void
}

/**
 * One open socket, and the operations under way on it; to resolvers it is their context. There may be very many: nothing
 * is kept that need not be, and what few need is made when they do.
 */
export class Connection implements RequestContext, Shown {
  readonly id = randomUUID()
  readonly writer: FrameWriter
  /** By the ids that the client has given them. */
  readonly operations = new Map<string, Operation>()
  /** How many are being executed, also of those that the client has completed meanwhile. */
  executing = 0
  /** Whether it has sent its `connection_init`. */
  isInitialised = false
  /** Seconds that we have waited for that. */
  secondsWaited = 0
  /** Who it is, once that is known. Whoever shows the same shares it. */
  identity: Identity | undefined
  private isClosing = false
  private pings = 0
  private bytesHeard = 0
  /** Of the stream's bytes, those that belong to a message or control frame that has come to its end. */
  private finishedBytes: number
  /** Seconds for which a message has been coming in. */
  unfinishedSeconds = 0
  /** What waits for its turn, in order. */
  private waiting: RawData[] | undefined
  /** Messages that have arrived in one piece so far. */
  private together = 0
  private controller: AbortController | undefined

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
  private get turnKey(): string {
    return this.identity?.subject.id ?? this.address
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
   * A message of this socket's own, behind the frames of this turn. Waits only behind what has not been read yet. What
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

  /** A result of an operation. */
  next(operationId: string, result: ExecutionResult): Promise<void> {
    const payload = resultForClient(result)
    return this.send(JSON.stringify({ id: operationId, type: MessageType.Next, payload }))
  }

  /** Its only result. */
  answer(operationId: string, result: ExecutionResult): Promise<void> {
    void this.next(operationId, result)
    return this.finish(operationId)
  }

  /** It has ended by itself. */
  finish(operationId: string): Promise<void> {
    this.operations.delete(operationId)
    return this.send(JSON.stringify({ id: operationId, type: MessageType.Complete }))
  }

  /** It has ended with errors, or could not begin. */
  fail(operationId: string, errors: readonly unknown[]): Promise<void> {
    this.operations.delete(operationId)
    const payload = errors.map((error) => forClient(error))
    return this.send(JSON.stringify({ id: operationId, type: MessageType.Error, payload }))
  }

  /** The client has ended it. */
  complete(operationId: string): void {
    const operation = this.operations.get(operationId)
    this.operations.delete(operationId)
    operation?.end()
  }

  take(data: RawData): void {
    const { bytesRead } = this.stream
    this.together = bytesRead === this.finishedBytes ? this.together + 1 : 1
    // Of a message behind it in the same piece a few bytes are counted as well.
    this.finishedBytes = bytesRead
    // What comes behind our close is not heard.
    if (!this.isOpen) return
    if (this.waiting) {
      this.waiting.push(data)
    } else if (lengthOf(data) <= SHORT_MESSAGE_BYTES && this.together <= MESSAGES_PER_TURN) {
      this.read(data)
    } else {
      this.waiting = [data]
      void this.readInTurns(this.waiting)
    }
  }

  /** Bytes of a message that has not come to its end. */
  get unfinishedBytes(): number {
    return Math.max(0, this.stream.bytesRead - this.finishedBytes)
  }

  /** It may come between the fragments of a message. */
  tookControlFrame(payload: Uint8Array): void {
    this.finishedBytes += CONTROL_FRAME_BYTES + payload.length
  }

  /** Meanwhile no more is read from the stream than has been. */
  private async readInTurns(waiting: RawData[]): Promise<void> {
    this.socket.pause()
    while (waiting.length > 0) {
      await new Promise<void>((resolve) => turns.wait(this.turnKey, resolve))
      let count = 0
      for (let data = waiting.shift(); data; data = waiting.shift()) {
        if (this.isOpen) this.read(data)
        if (++count === MESSAGES_PER_TURN || lengthOf(data) > SHORT_MESSAGE_BYTES) break
      }
    }
    this.waiting = undefined
    this.socket.resume()
  }

  private read(data: RawData): void {
    try {
      this.owner.received(this, parse(data))
    } catch (error) {
      this.close(CloseCode.BadRequest, error instanceof TooLarge ? error.message : NOT_UNDERSTOOD)
    }
  }

  closed(): void {
    this.controller?.abort()
    this.owner.closed(this)
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
  async end(code: number, reason: string): Promise<void> {
    if (this.socket.readyState === this.socket.CLOSED) return
    const closed = new Promise((resolve) => this.socket.once('close', resolve))
    this.close(code, reason)
    await closed
  }

  terminate(): void {
    this.socket.terminate()
  }
}

function onMessage(this: ViewerSocket, data: RawData): void {
  this.connection?.take(data)
}

function onControlFrame(this: ViewerSocket, payload: Uint8Array): void {
  this.connection?.tookControlFrame(payload)
}

function onClose(this: ViewerSocket): void {
  this.connection?.closed()
}

function onError(this: ViewerSocket, error: Error): void {
  if (this.connection) this.connection.owner.broke(this.connection, error)
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
