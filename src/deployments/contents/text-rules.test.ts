import { describe, expect, test } from '@jest/globals'
import { validateCommitMessage, validateDescription, validateIdempotencyKey } from './text-rules.ts'

describe('the rules for texts', () => {
  test.each(['Initial commit', 'a\n\nb\tc', 'é😀', 'x'.repeat(65_536)])(
    'accept the commit message %#',
    (message) => expect(validateCommitMessage(message)).toEqual([]),
  )
  test.each(['', ' \n\t', 'a\0', 'a\r\nb', 'a\x1b[31m', 'a\ud800', 'x'.repeat(65_537), 'é'.repeat(32_769)])(
    'reject the commit message %#',
    (message) => expect(validateCommitMessage(message)).toHaveLength(1),
  )
  test.each(['', 'A thing', '😀'.repeat(350)])('accept the description %#', (description) =>
    expect(validateDescription(description)).toEqual([]),
  )
  test.each(['x'.repeat(351), '😀'.repeat(351), 'a\nb', 'a\x07', '\udc00'])(
    'reject the description %#',
    (description) => expect(validateDescription(description)).toHaveLength(1),
  )
  test.each(['k', 'a b~!', 'commande n° 42 ✓', 'é', 'x'.repeat(255), '😀'.repeat(255)])(
    'accept the idempotency key %#',
    (key) => expect(validateIdempotencyKey(key)).toEqual([]),
  )
  test.each(['', 'a\n', 'a\x7f', '\0', '\u0085', 'x'.repeat(256), '😀'.repeat(256), '\ud800'])(
    'reject the idempotency key %#',
    (key) => expect(validateIdempotencyKey(key)).toHaveLength(1),
  )
})
