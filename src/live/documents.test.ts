import { expect, test } from '@jest/globals'
import { buildSchema } from 'graphql'
import { Documents } from './documents.ts'

const schema = buildSchema('type Query { name: String }')

test('each is read once, as long as they are of a usual length together', () => {
  const documents = new Documents()
  const read = (number: number, length: number) =>
    documents.read(schema, { query: `query Q${number} { name } #${'x'.repeat(length)}` })
  const first = read(0, 1_000)
  for (let number = 1; number < 400; number++) read(number, 1_000)
  expect(read(0, 1_000)).toBe(first)
  // Somebody fills the memory with large ones.
  for (let number = 400; number < 420; number++) read(number, 90_000)
  expect(read(0, 1_000)).not.toBe(first)
  expect(read(419, 90_000)).toBe(read(419, 90_000))
})
