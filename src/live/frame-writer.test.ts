import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net'
import { afterEach, beforeEach, expect, test } from '@jest/globals'
import { MAX_WAIT_MS, waitUntil } from '../../test/support/processes.ts'
import type { FramePrefix } from './frame-batch.ts'
import { FrameWriter } from './frame-writer.ts'

let server: Server
let readers: Reader[]

beforeEach(async () => {
  readers = []
  server = createServer()
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
})

afterEach(() => {
  for (const { socket, ours } of readers) {
    socket.destroy()
    ours.destroy()
  }
  server.close()
})

/** The other end of a socket that has a writer. */
class Reader {
  private readonly texts: string[] = []
  private rest = Buffer.alloc(0)

  private constructor(
    readonly socket: Socket,
    readonly ours: Socket,
    readonly writer = new FrameWriter(ours),
  ) {
    socket.on('data', (chunk) => this.read(chunk))
  }

  static async open(): Promise<Reader> {
    const accepted = once(server, 'connection')
    const socket = connect((server.address() as AddressInfo).port, '127.0.0.1')
    const [ours] = (await accepted) as [Socket]
    const reader = new Reader(socket, ours)
    readers.push(reader)
    return reader
  }

  async first(count: number): Promise<string[]> {
    await waitUntil(
      () => this.texts.length >= count,
      () => `${count} frames; there are ${this.texts.length}`,
      MAX_WAIT_MS,
    )
    return this.texts
  }

  private read(chunk: Buffer): void {
    let buffer = Buffer.concat([this.rest, chunk])
    while (buffer.length > 10) {
      expect(buffer[0]).toBe(0x81)
      let length = buffer[1] ?? 0
      let start = 2
      if (length === 126) {
        length = buffer.readUInt16BE(start)
        start += 2
      } else if (length === 127) {
        length = Number(buffer.readBigUInt64BE(start))
        start += 8
      }
      if (start + length > buffer.length) break
      this.texts.push(buffer.toString('utf8', start, start + length))
      buffer = buffer.subarray(start + length)
    }
    this.rest = buffer
  }
}

const start = (text: string): FramePrefix => ({ text, byteLength: Buffer.byteLength(text) })
const bytes = (text: string) => new TextEncoder().encode(text)

test('all frames of a turn go to each socket in one write, each with its own start, in order', async () => {
  const all = [await Reader.open(), await Reader.open(), await Reader.open()]
  const starts = ['a', 'b', 'longer, ü'].map(start)
  const rests = ['0'.repeat(10), '1'.repeat(124), '2'.repeat(70_000)].map(bytes)
  let writes = 0
  for (const { ours } of all) {
    const { write } = ours
    ours.write = ((chunk: Buffer) => {
      writes++
      return Reflect.apply(write, ours, [chunk])
    }) as typeof write
  }
  for (const rest of rests) {
    for (const [i, { writer }] of all.entries()) writer.push(starts[i] ?? start(''), rest)
  }
  for (const [i, reader] of all.entries()) {
    expect(await reader.first(rests.length)).toEqual(
      rests.map((rest) => `${starts[i]?.text}${Buffer.from(rest)}`),
    )
  }
  expect(writes).toBe(all.length)
})

test('frames of several subscriptions on one socket keep their order and their starts', async () => {
  const reader = await Reader.open()
  const frames = ['one first', 'two first', 'three second', 'one second', 'one third...'].map((frame) =>
    frame.split(' '),
  )
  const starts = new Map(['one', 'two', 'three'].map((text) => [text, start(text)]))
  for (const [of = '', rest = ''] of frames) reader.writer.push(starts.get(of) ?? start(''), bytes(rest))
  expect(await reader.first(frames.length)).toEqual(frames.map((frame) => frame.join('')))
})

test('what the operating system has not taken of one socket is not changed by the next one', async () => {
  const all: Reader[] = []
  for (let i = 0; i < 4; i++) all.push(await Reader.open())
  // Nobody reads, so that it takes no more after some megabytes.
  for (const { socket } of all) socket.pause()
  const rest = bytes('x'.repeat(1_000_000))
  const turns = 12
  for (let turn = 0; turn < turns; turn++) {
    for (const [i, { writer }] of all.entries()) writer.push(start(`${i}`), rest)
    await new Promise(setImmediate)
  }
  expect(all.every(({ ours }) => ours.writableLength > 0)).toBe(true)
  for (const { socket } of all) socket.resume()
  for (const [i, reader] of all.entries()) {
    const texts = await reader.first(turns)
    expect(texts.map((text) => text.slice(0, 2))).toEqual(new Array(turns).fill(`${i}x`))
  }
})
