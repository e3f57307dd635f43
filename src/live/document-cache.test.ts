import { expect, test } from '@jest/globals'
import { buildSchema } from 'graphql'
import { DocumentCache } from './document-cache.ts'

const schema = buildSchema('type Query { me: Int } type Subscription { ticks: Int }')

test('keeps documents that are used again, and no more of large ones than fit', () => {
  const documents = new DocumentCache()
  const read = (query: string) => documents.get(schema, { query })
  const large = (index: number) => `{ me${' '.repeat(90_000)} } # ${index}`
  const small = Array.from({ length: 100 }, (_, index) => `subscription { a${index}: ticks }`)

  const first = small.map(read)
  for (const [index, query] of small.entries()) expect(read(query)).toBe(first[index])
  const firstLarge = read(large(0))
  expect(read(large(0))).toBe(firstLarge)

  for (let index = 1; index < 20; index++) read(large(index))
  for (const [index, query] of small.entries()) expect(read(query)).not.toBe(first[index])
  expect(read(large(0))).not.toBe(firstLarge)
})
