import { describe, expect, test } from '@jest/globals'
import { type SelectedFile, TooManyFilesError } from './collect-files.ts'
import { FileSelectionError, readContents, toFileInput } from './read-files.ts'

const bytesOf = (text: string) => new TextEncoder().encode(text)

describe('a script', () => {
  const isExecutable = (text: string) => toFileInput('x', bytesOf(text)).executable

  test.each(['#!/bin/sh\n', '#! /usr/bin/env node', '#!\t /bin/sh -e\r\n', '#!/x'])(
    'starts as %j',
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
  ])('does not start as %j', (text) => {
    expect(isExecutable(text)).toBe(false)
  })
})

describe('a file', () => {
  test('of text is sent unchanged, with byte order mark and line endings', () => {
    const content = '\ufeff# Grüße\r\n'
    expect(toFileInput('x', bytesOf(content))).toMatchObject({ content, encoding: 'UTF8' })
  })

  test.each([
    ['a NUL', [0x23, 0x21, 0x2f, 0], 'IyEvAA=='],
    ['invalid UTF-8', [0xff, 0xfe], '//4='],
  ])('with %s is sent in base64', (_, bytes, content) => {
    expect(toFileInput('x', new Uint8Array(bytes))).toMatchObject({ content, encoding: 'BASE64' })
  })

  test('larger than one call can encode is sent whole', () => {
    const bytes = new Uint8Array(100_000)
    const { content } = toFileInput('x', bytes)
    expect(Buffer.from(content, 'base64').equals(bytes)).toBe(true)
  })
})

describe('reading a selection', () => {
  const select = (...files: [path: string, content: string][]): SelectedFile[] =>
    files.map(([path, content]) => ({ path, file: new File([content], path) }))

  function read(files: SelectedFile[], signal = new AbortController().signal, onProgress = () => {}) {
    return readContents(Promise.resolve({ files, ignoredCount: 2 }), { signal, onProgress })
  }

  test('keeps the order, and adds up sizes in bytes', async () => {
    const contents = await read(select(['b', 'ü'], ['a', 'text']))
    expect(contents.files.map(({ path, content }) => [path, content])).toEqual([
      ['b', 'ü'],
      ['a', 'text'],
    ])
    expect(contents).toMatchObject({ sizeBytes: 6, ignoredCount: 2 })
  })

  test('reports progress before each batch', async () => {
    const files = select(...Array.from({ length: 20 }, (_, n): [string, string] => [`${n}`, '']))
    const progress: number[][] = []
    await readContents(Promise.resolve({ files, ignoredCount: 0 }), {
      signal: new AbortController().signal,
      onProgress: (...reported) => progress.push(reported),
    })
    expect(progress).toEqual([
      [0, 20],
      [16, 20],
    ])
  })

  test('stops when it is aborted', async () => {
    const controller = new AbortController()
    const files = select(...Array.from({ length: 20 }, (_, n): [string, string] => [`${n}`, '']))
    const reading = read(files, controller.signal, () => controller.abort())
    await expect(reading).rejects.toMatchObject({ name: 'AbortError' })
  })

  test('refuses an empty selection', async () => {
    await expect(read([])).rejects.toThrow(
      'The selection contains no files to deploy. Choose something else.',
    )
  })

  test('refuses what does not fit into a request, and names the largest file', async () => {
    const large = select(['small', 'x'], ['large', 'x'.repeat(32_000_000)])
    await expect(read(large)).rejects.toThrow(
      'These 2 files (32.0 MB) do not fit into one request of 31.5 MB. The largest is large (32.0 MB). Select fewer or smaller files.',
    )
  })

  test('refuses too many files', async () => {
    const collecting = Promise.reject(new TooManyFilesError())
    const options = { signal: new AbortController().signal, onProgress: () => {} }
    await expect(readContents(collecting, options)).rejects.toThrow('A deployment can contain at most')
  })

  test('names a file that cannot be read', async () => {
    const [gone] = select(['docs/gone', ''])
    if (gone) gone.file.arrayBuffer = () => Promise.reject(new Error('NotFoundError'))
    const reading = read(gone ? [gone] : [])
    await expect(reading).rejects.toThrow(FileSelectionError)
    await expect(reading).rejects.toThrow('Could not read docs/gone.')
  })
})
