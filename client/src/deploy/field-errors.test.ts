import { expect, test } from '@jest/globals'
import { FieldErrors, toSentence } from './field-errors.ts'

const errors = new FieldErrors([
  { path: 'org', reason: 'must not be empty' },
  { path: 'org', reason: 'has a hyphen at the start' },
  { path: 'contents.files[3].path', reason: 'is absolute' },
  { path: 'idempotencyKey', reason: 'is too long' },
])

test('joins all errors of a field as sentences', () => {
  expect(errors.at('org')).toBe('Must not be empty. Has a hyphen at the start.')
  expect(errors.at('repo')).toBeUndefined()
})

test('returns the errors that no field displays', () => {
  expect(errors.startingWith('contents.files[').map(({ reason }) => reason)).toEqual(['is absolute'])
  const others = errors.except((path) => path === 'org' || path.startsWith('contents'))
  expect(others.map(({ path }) => path)).toEqual(['idempotencyKey'])
})

test('a reason that ends a sentence gets no second period', () => {
  expect(toSentence('is too long. Use at most 100 characters.')).toBe(
    'Is too long. Use at most 100 characters.',
  )
  expect(toSentence('is that right?')).toBe('Is that right?')
})
