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

/** The client end of a socket with a writer. */
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

const prefix = (text: string): FramePrefix => ({ text, byteLength: Buffer.byteLength(text) })
const bytes = (text: string) => new TextEncoder().encode(text)

test('writes all frames of a turn to each socket at once, in order, each socket with its own prefix', async () => {
  for (let i = 0; i < 3; i++) await Reader.open()
  const prefixes = ['a', 'b', 'longer, ü'].map(prefix)
  const suffixes = ['0'.repeat(10), '1'.repeat(124), '2'.repeat(70_000)].map(bytes)
  let writes = 0
  for (const { ours } of readers) {
    const { write } = ours
    ours.write = ((chunk: Buffer) => {
      writes++
      return Reflect.apply(write, ours, [chunk])
    }) as typeof write
  }
  for (const suffix of suffixes) {
    for (const [i, { writer }] of readers.entries()) writer.push(prefixes[i] ?? prefix(''), suffix)
  }
  for (const [i, reader] of readers.entries()) {
    expect(await reader.first(suffixes.length)).toEqual(
      suffixes.map((suffix) => `${prefixes[i]?.text}${Buffer.from(suffix)}`),
    )
  }
  expect(writes).toBe(readers.length)
})

test('frames of several subscriptions on one socket keep their order and their prefixes', async () => {
  const reader = await Reader.open()
  const frames = ['one first', 'two first', 'three second', 'one second', 'one third...'].map((frame) =>
    frame.split(' '),
  )
  const prefixes = new Map(['one', 'two', 'three'].map((text) => [text, prefix(text)]))
  for (const [id = '', suffix = ''] of frames)
    reader.writer.push(prefixes.get(id) ?? prefix(''), bytes(suffix))
  expect(await reader.first(frames.length)).toEqual(frames.map((frame) => frame.join('')))
})

test('bytes that the operating system has not accepted from one socket are not overwritten for the next', async () => {
  for (let i = 0; i < 4; i++) await Reader.open()
  // No client reads, so the operating system accepts no more after a few megabytes.
  for (const { socket } of readers) socket.pause()
  const suffix = bytes('x'.repeat(1_000_000))
  const turns = 12
  for (let turn = 0; turn < turns; turn++) {
    for (const [i, { writer }] of readers.entries()) writer.push(prefix(`${i}`), suffix)
    await new Promise(setImmediate)
  }
  expect(readers.every(({ ours }) => ours.writableLength > 0)).toBe(true)
  for (const { socket } of readers) socket.resume()
  for (const [i, reader] of readers.entries()) {
    const texts = await reader.first(turns)
    expect(texts.map((text) => text.slice(0, 2))).toEqual(new Array(turns).fill(`${i}x`))
  }
})
