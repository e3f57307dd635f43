import { randomBytes } from 'node:crypto'
import { PassThrough } from 'node:stream'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { expect, test } from '@jest/globals'
import { turns } from '../turns.ts'
import { readInTurn } from './read-in-turn.ts'

const CHUNK_BYTES = 64 * 1024

class Client {
  readonly sent = randomBytes(3 * CHUNK_BYTES)
  readonly received: Buffer[] = []
  readonly stream = new PassThrough({ highWaterMark: this.sent.length })

  constructor(name: string, pieceMs: number) {
    this.stream.on('data', (piece: Buffer) => {
      this.received.push(piece)
      const end = performance.now() + pieceMs
      while (performance.now() < end);
    })
    readInTurn(this.stream, { turnKey: name })
  }

  send(): void {
    for (let at = 0; at < this.sent.length; at += CHUNK_BYTES)
      this.stream.write(this.sent.subarray(at, at + CHUNK_BYTES))
  }

  get pieces(): number {
    return this.received.length
  }

  get hasAll(): boolean {
    return Buffer.concat(this.received).equals(this.sent)
  }
}

async function inTurns(isDone: () => boolean): Promise<void> {
  for (let count = 0; !isDone(); count++) {
    if (count > 10_000) throw new Error('It has not come.')
    await nextTurn()
  }
}

test('what many send at once is handed on over many turns, each in its order', async () => {
  const clients = Array.from({ length: 5 }, (_, index) => new Client(`${index}`, 2))
  const pieces = () => clients.reduce((sum, client) => sum + client.pieces, 0)
  for (const client of clients) client.send()
  let before = 0
  await inTurns(() => {
    // Two slices of 10 ms, and one piece more of each.
    expect(pieces() - before).toBeLessThanOrEqual(12)
    before = pieces()
    return clients.every(({ hasAll }) => hasAll)
  })
})

test('one of few messages does not wait for those of a flood', async () => {
  const flood = Array.from({ length: 20 }, () => new Client('mallory', 2))
  for (const client of flood) client.send()
  await nextTurn()
  const bob = new Client('bob', 0)
  bob.stream.write(bob.sent.subarray(0, 100))
  await inTurns(() => bob.pieces > 0)
  expect(flood.some(({ pieces }) => pieces === 0)).toBe(true)
  for (const { stream } of flood) stream.destroy()
  // Whoever is gone leaves the line in its turn.
  await inTurns(() => turns.isFree)
})

test('nothing is handed on behind the end', async () => {
  const [first, second] = [new Client('first', 20), new Client('second', 0)]
  for (const client of [first, second]) client.send()
  second.stream.end()
  let piecesAtEnd: number | undefined
  second.stream.once('end', () => {
    piecesAtEnd = second.pieces
  })
  await inTurns(() => first.hasAll && piecesAtEnd !== undefined && turns.isFree)
  expect(second.pieces).toBe(piecesAtEnd)
})
