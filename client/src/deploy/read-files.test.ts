import { expect, test } from '@jest/globals'
import { toFileInput } from './read-files.ts'

const isExecutable = (text: string) => toFileInput('x', new TextEncoder().encode(text)).executable

test.each(['#!/bin/sh\n', '#! /usr/bin/env node', '#!\t /bin/sh -e\r\n', '#!/x'])(
  '%j is a script',
  (text) => {
    expect(isExecutable(text)).toBe(true)
  },
)

test.each([
  '#![allow(dead_code)]\n',
  '#!\n/bin/sh',
  '#! ',
  '#!bin/sh',
  '# !/bin/sh',
  ' #!/bin/sh',
  '\ufeff#!/bin/sh',
  `#!${' '.repeat(300)}/bin/sh`,
  '#',
  '',
])('%j is no script', (text) => {
  expect(isExecutable(text)).toBe(false)
})

test('bytes that are no text go in base64', () => {
  expect(toFileInput('x', new Uint8Array([0x23, 0x21, 0x2f, 0]))).toEqual({
    path: 'x',
    content: 'IyEvAA==',
    encoding: 'BASE64',
    executable: true,
  })
})
