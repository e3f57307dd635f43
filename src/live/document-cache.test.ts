import { expect, test } from '@jest/globals'
import { buildSchema } from 'graphql'
import { DocumentCache, InvalidDocumentError } from './document-cache.ts'

const schema = buildSchema('type Query { me: Int } type Subscription { ticks: Int }')

const smallQueries = Array.from({ length: 100 }, (_, index) => `subscription { a${index}: ticks }`)
const largeQuery = (index: number) => `{ me${' '.repeat(90_000)} } # ${index}`

test('caches documents, and drops the least recently used once large ones fill the cache', () => {
  const documents = new DocumentCache()
  const get = (query: string) => documents.get(schema, { query })

  const small = smallQueries.map(get)
  for (const [index, query] of smallQueries.entries()) expect(get(query)).toBe(small[index])
  const large = get(largeQuery(0))
  expect(get(largeQuery(0))).toBe(large)

  for (let index = 1; index < 20; index++) get(largeQuery(index))
  for (const [index, query] of smallQueries.entries()) expect(get(query)).not.toBe(small[index])
  expect(get(largeQuery(0))).not.toBe(large)
})

test('refuses an operation name that the document does not have, and does not cache it', () => {
  const documents = new DocumentCache()
  const query = '{ me }'
  const valid = documents.get(schema, { query })
  for (const operationName of ['\n', 'x'.repeat(400_000), 'y'.repeat(400_000)]) {
    expect(() => documents.get(schema, { query, operationName })).toThrow(InvalidDocumentError)
  }
  expect(documents.get(schema, { query })).toBe(valid)
})
