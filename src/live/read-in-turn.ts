import type { Duplex } from 'node:stream'
import { turns } from '../turns.ts'

/** Handed on in one go: some hundreds of the smallest messages, or the end of a large one. */
const PIECE_BYTES = 8 * 1024

/** Who sends, for taking turns. */
interface Sender {
  readonly turnKey: string
}

/**
 * Hands what arrives on to whoever has listened before, piece by piece, each when it is the sender's turn. Meanwhile no
 * more is read than has been. So a flood of messages, or of frames that are none, keeps nobody waiting.
 */
export function readInTurn(stream: Duplex, sender: Sender): Reader {
  const [receive] = stream.listeners('data')
  if (!receive) throw new Error('Nobody reads this stream.')
  stream.removeAllListeners('data')
  const reader = new Reader(stream, receive, sender)
  stream.on('data', (chunk: Buffer) => reader.take(chunk))
  return reader
}

export class Reader {
  /** What waits for its turn. */
  private rest: Buffer | undefined

  constructor(
    private readonly stream: Duplex,
    // biome-ignore lint/complexity/noBannedTypes: so Node's own types have it
    private readonly receive: Function,
    private readonly sender: Sender,
  ) {}

  get waitingBytes(): number {
    return this.rest?.length ?? 0
  }

  take(chunk: Buffer): void {
    if (this.rest) {
      // It had been read before.
      this.rest = Buffer.concat([this.rest, chunk])
      this.stream.pause()
      return
    }
    this.rest = chunk
    if (turns.isFree) this.handOn()
    else this.wait()
  }

  private wait(): void {
    this.stream.pause()
    turns.wait(this.sender.turnKey, () => this.handOn())
  }

  private handOn(): void {
    const { stream } = this
    // Whoever has hung up waits for no answer.
    while (this.rest && !stream.readableEnded && !stream.destroyed) {
      const piece = this.rest.subarray(0, PIECE_BYTES)
      this.rest = piece.length < this.rest.length ? this.rest.subarray(piece.length) : undefined
      Reflect.apply(this.receive, stream, [piece])
      if (this.rest && !turns.isFree) {
        this.wait()
        return
      }
    }
    this.rest = undefined
    stream.resume()
  }
}
