import { randomBytes } from 'node:crypto'
import { connect, type Socket } from 'node:net'

const OPCODE_TEXT = 1
const OPCODE_CLOSE = 8
const OPCODE_PING = 9
const OPCODE_PONG = 10
const END_OF_HEADERS = '\r\n\r\n'

export interface RawSocketListener {
  opened(): void
  /** A text frame: bytes `start` to `end` of a buffer that is used again afterwards. */
  text(buffer: Buffer, start: number, end: number): void
  closed(code: number): void
}

// One buffer for all sockets of the process: each chunk is handled before the next one is read.
const receiveBuffer = Buffer.allocUnsafe(64 * 1024)
const mask = randomBytes(4)

/**
 * A WebSocket client (RFC 6455) that does as little as possible, so that thousands of them fit beside the
 * server on one machine: it passes text frames on without copying or decoding them.
 */
export class RawSocket {
  private readonly socket: Socket
  private readonly listener: RawSocketListener
  private isOpen = false
  private isClosed = false
  private closeCode = 1006
  /** The beginning of an incomplete frame. */
  private partialFrame: Buffer | undefined

  constructor(url: URL, listener: RawSocketListener) {
    this.listener = listener
    this.socket = connect({
      host: url.hostname,
      port: Number(url.port),
      noDelay: true,
      onread: {
        buffer: receiveBuffer,
        callback: (length) => {
          this.read(receiveBuffer.subarray(0, length))
          return true
        },
      },
    })
    const key = randomBytes(16).toString('base64')
    this.socket.write(
      [
        `GET ${url.pathname} HTTP/1.1`,
        `Host: ${url.host}`,
        'Upgrade: websocket',
        'Connection: Upgrade',
        `Sec-WebSocket-Key: ${key}`,
        'Sec-WebSocket-Version: 13',
        `Sec-WebSocket-Protocol: graphql-transport-ws${END_OF_HEADERS}`,
      ].join('\r\n'),
    )
    // "close" follows.
    this.socket.on('error', () => undefined)
    this.socket.on('end', () => this.socket.destroy())
    this.socket.on('close', () => this.end())
  }

  send(message: object): void {
    this.write(OPCODE_TEXT, Buffer.from(JSON.stringify(message)))
  }

  /** Stops reading: data stays in the kernel, and then in the server. */
  pause(): void {
    this.socket.pause()
  }

  resume(): void {
    this.socket.resume()
  }

  /** Like a pulled cable: without a close frame. */
  cut(): void {
    this.end()
    this.socket.resetAndDestroy()
  }

  private end(): void {
    if (this.isClosed) return
    this.isClosed = true
    this.listener.closed(this.closeCode)
  }

  private write(opcode: number, payload: Buffer): void {
    const isLong = payload.length > 125
    const frame = Buffer.allocUnsafe(payload.length + (isLong ? 8 : 6))
    frame[0] = 0x80 | opcode
    frame[1] = 0x80 | (isLong ? 126 : payload.length)
    if (isLong) frame.writeUInt16BE(payload.length, 2)
    const start = frame.length - payload.length
    mask.copy(frame, start - 4)
    for (let i = 0; i < payload.length; i++) frame[start + i] = payload[i]! ^ mask[i & 3]!
    this.socket.write(frame)
  }

  private read(chunk: Buffer): void {
    if (this.isClosed) return
    let buffer = chunk
    if (this.partialFrame) {
      buffer = Buffer.concat([this.partialFrame, chunk])
      this.partialFrame = undefined
    }
    let offset = 0
    if (!this.isOpen) {
      const end = buffer.indexOf(END_OF_HEADERS)
      if (end < 0) {
        this.keepPartialFrame(buffer, 0)
        return
      }
      if (!buffer.toString('latin1', 0, end).startsWith('HTTP/1.1 101')) {
        this.socket.destroy()
        return
      }
      this.isOpen = true
      offset = end + END_OF_HEADERS.length
      this.listener.opened()
    }
    while (offset < buffer.length) {
      const next = this.readFrame(buffer, offset)
      if (next === undefined) {
        this.keepPartialFrame(buffer, offset)
        return
      }
      offset = next
    }
  }

  /** Returns the offset of the next frame; undefined if this one is incomplete. */
  private readFrame(buffer: Buffer, offset: number): number | undefined {
    const available = buffer.length - offset
    if (available < 2) return undefined
    let length = buffer[offset + 1]! & 0x7f
    let start = offset + 2
    if (length === 126) {
      if (available < 4) return undefined
      length = buffer.readUInt16BE(offset + 2)
      start += 2
    } else if (length === 127) {
      if (available < 10) return undefined
      length = Number(buffer.readBigUInt64BE(offset + 2))
      start += 8
    }
    const end = start + length
    if (end > buffer.length) return undefined
    const opcode = buffer[offset]! & 0x0f
    if (opcode <= OPCODE_TEXT) this.listener.text(buffer, start, end)
    else if (opcode === OPCODE_PING) this.write(OPCODE_PONG, buffer.subarray(start, end))
    else if (opcode === OPCODE_CLOSE) {
      if (length >= 2) this.closeCode = buffer.readUInt16BE(start)
      this.write(OPCODE_CLOSE, buffer.subarray(start, Math.min(start + 2, end)))
    }
    return end
  }

  private keepPartialFrame(buffer: Buffer, offset: number): void {
    this.partialFrame = Buffer.from(buffer.subarray(offset))
  }
}
