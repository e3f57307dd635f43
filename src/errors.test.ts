import { expect, test } from '@jest/globals'
import { GraphQLError } from 'graphql'
import {
  BadUserInputError,
  ConflictError,
  internalError,
  NotFoundError,
  quote,
  RateLimitedError,
  TooLargeError,
  UnknownCursorError,
} from './errors.ts'

const ERRORS = [
  new BadUserInputError([{ path: 'input.org', reason: 'must not be empty' }]),
  new NotFoundError('Deployment 1'),
  new ConflictError('Another deployment of octo/demo is active. Wait for it or cancel it.', {
    deploymentId: '1',
  }),
  new UnknownCursorError('x'),
  new TooLargeError('The request is larger than 32 MiB. Send fewer files.'),
  new RateLimitedError('Too many deployments.', 1500),
  internalError('4f1c'),
]

test.each(ERRORS)('$code reaches a client with its code and a sentence', (error) => {
  expect(error).toBeInstanceOf(GraphQLError)
  expect(error.toJSON()).toMatchObject({ message: error.message, extensions: { code: error.code } })
  expect(error.message).toMatch(/^[A-Z].*\.$/)
})

test('extensions contain what a client needs for its next step', () => {
  expect(ERRORS.map(({ extensions: { code, ...details } }) => details)).toEqual([
    { fields: [{ path: 'input.org', reason: 'must not be empty' }], faultCount: 1 },
    {},
    { deploymentId: '1' },
    {},
    { fields: [] },
    { retryAfterMs: 1500 },
    { id: '4f1c' },
  ])
})

test('a quotation is short, on one line and well-formed', () => {
  expect(quote('a\n"b"')).toBe('"a\\n\\"b\\""')
  expect(quote('x'.repeat(1000))).toHaveLength(82)
  expect(quote(`${'x'.repeat(78)}😀😀`).isWellFormed()).toBe(true)
})

test('a quotation escapes characters that are invisible or change how the rest is displayed', () => {
  expect(quote('a\u001b[31m\u007f\u009b1m\u202e\u2028\u200b\ufeff')).toBe(
    '"a\\u001b[31m\\u007f\\u009b1m\\u202e\\u2028\\u200b\\ufeff"',
  )
  expect(quote('a\u3164\u034f\u1160')).toBe('"a\\u3164\\u034f\\u1160"')
  expect(quote('é 日本 😀 ❤️')).toBe('"é 日本 😀 ❤️"')
  expect(quote('\u{e0041}')).toBe('"\\udb40\\udc41"')
  expect(new NotFoundError('Deployment \u001b[31m').message).toContain(
    'Deployment \\u001b[31m does not exist',
  )
})
