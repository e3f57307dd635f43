import { expect, test } from '@jest/globals'
import { packet, parseAdvertisement, parseReport } from './git-wire.ts'

const SERVICE = 'git-receive-pack'
const REF = 'refs/heads/main'
const sideBand = new Set(['side-band-64k'])

test('reads the refs of a large repository', () => {
  const refs = Array.from({ length: 19_000 }, (_, i) => packet(`${'a'.repeat(40)} refs/heads/${i}\n`))
  const body = Buffer.concat([packet(`# service=${SERVICE}\n`), Buffer.from('0000'), ...refs])
  expect(parseAdvertisement(body, SERVICE).refs.size).toBe(19_000)
})

// Without a limit on lines, each of these blocks the event loop for ten seconds and takes a gigabyte.
test.each([
  ['empty lines', Buffer.alloc(4 * 1024 * 1024, '0004')],
  ['flushes', Buffer.alloc(4 * 1024 * 1024, '0000')],
  ['one-byte progress messages', Buffer.alloc(5 * 800_000, '0005\x02')],
  ['one-byte parts of a report', Buffer.alloc(5 * 800_000, '0005\x01')],
  ['a report full of empty lines', Buffer.concat(Array(60).fill(packet(`\x01${'0004'.repeat(16_000)}`)))],
])('rejects more lines than a push can have: %s', (_name, body) => {
  expect(() => parseReport(body, REF, sideBand)).toThrow('more than 20000 lines')
  const advertised = Buffer.concat([packet(`# service=${SERVICE}\n`), body])
  expect(() => parseAdvertisement(advertised, SERVICE)).toThrow(/^the response /)
})
