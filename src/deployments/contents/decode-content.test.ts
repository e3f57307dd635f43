import { randomBytes } from 'node:crypto'
import { expect, test } from '@jest/globals'
import fc from 'fast-check'
import { CooperativeScheduler } from '../../runtime/cooperative-scheduler.ts'
import { decodeContent } from './decode-content.ts'

const createScheduler = () => new CooperativeScheduler(new AbortController().signal)
const decode = async (content: string, encoding: 'UTF8' | 'BASE64') =>
  decodeContent(content, encoding, createScheduler())

test('returns any bytes that were sent as BASE64', async () => {
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ maxLength: 200 }), async (bytes) => {
      expect(await decode(Buffer.from(bytes).toString('base64'), 'BASE64')).toEqual(Buffer.from(bytes))
    }),
  )
})

test('encodes any text as UTF-8', async () => {
  await fc.assert(
    fc.asyncProperty(fc.string({ unit: 'binary' }), async (text) => {
      expect(await decode(text, 'UTF8')).toEqual(Buffer.from(text))
    }),
  )
})

test.each([
  'A',
  'AA',
  'AAA',
  'AA=',
  'AA===',
  'A===',
  '=',
  '====',
  'AB==',
  'AAB=',
  'AA==AA==',
  'AAA A',
  'AAAA\n',
  ' AAAA',
])('rejects %j as BASE64', async (content) =>
  expect(await decode(content, 'BASE64')).toMatch(/is not BASE64/),
)

test.each(['_-8=', '-_-_', 'AAAA,', 'AAé=', 'AA\0='])(
  'rejects %j, which is not in the standard alphabet',
  async (content) => expect(await decode(content, 'BASE64')).toMatch(/is not BASE64/),
)

test.each(['\ud800', 'a\udc00b', '\udc00\ud800'])(
  'suggests BASE64 for the lone surrogate in %j',
  async (content) => expect(await decode(content, 'UTF8')).toMatch(/Send the file as BASE64/),
)

test('accepts the empty file in both encodings', async () => {
  expect(await decode('', 'UTF8')).toEqual(Buffer.alloc(0))
  expect(await decode('', 'BASE64')).toEqual(Buffer.alloc(0))
})

test('returns small contents synchronously', () => {
  expect(decodeContent('small', 'UTF8', createScheduler())).toBeInstanceOf(Uint8Array)
})

test('decodes large contents completely, wherever they are split', async () => {
  const bytes = randomBytes(3_000_001)
  expect(bytes.equals(await bytesOf(bytes.toString('base64'), 'BASE64'))).toBe(true)
  for (const lead of ['', 'x', 'xx']) {
    const text = lead + '😀é'.repeat(700_000)
    expect(Buffer.from(text).equals(await bytesOf(text, 'UTF8'))).toBe(true)
  }
})

async function bytesOf(content: string, encoding: 'UTF8' | 'BASE64'): Promise<Uint8Array> {
  const decoded = await decode(content, encoding)
  if (typeof decoded === 'string') throw new Error(decoded)
  return decoded
}

test('is equally strict with large contents', async () => {
  const part = 'A'.repeat(512 * 1024)
  expect(await decode(`${part.slice(2)}==AAAA`, 'BASE64')).toMatch(/is not BASE64/)
  expect(await decode(`${part}A`, 'BASE64')).toMatch(/is not BASE64/)
  expect(await decode(`${part}\ud800`, 'UTF8')).toMatch(/lone surrogate/)
  expect(await decode(`${part.slice(1)}\ud800x`, 'UTF8')).toMatch(/lone surrogate/)
})

test('rejects more than 100 MiB', async () => {
  expect(await decode('A'.repeat(100 * 1024 * 1024 + 1), 'UTF8')).toMatch(/at most 100 MiB/)
  expect(await decode('A'.repeat(140 * 1024 * 1024), 'BASE64')).toMatch(/at most 100 MiB/)
})
