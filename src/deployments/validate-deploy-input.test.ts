import { expect, test } from '@jest/globals'
import fc from 'fast-check'
import { BadUserInputError, type FieldError } from '../errors.ts'
import type { DeployInput, FileInput } from './deploy.input.ts'
import { validateDeployInput } from './validate-deploy-input.ts'

const NO_TEMPLATES = {
  render: async () => ({ errors: [{ path: 'input.contents.template.name', reason: 'is not a template' }] }),
}

function validate(input: DeployInput, signal = new AbortController().signal) {
  return validateDeployInput(input, { templates: NO_TEMPLATES, signal })
}

const files = (...some: FileInput[]): DeployInput => ({
  org: 'octo',
  repo: 'demo',
  contents: { files: some },
})

async function rejectionOf(input: DeployInput): Promise<BadUserInputError> {
  const error = await validate(input).then(
    () => null,
    (reason: unknown) => reason,
  )
  if (error instanceof BadUserInputError) return error
  throw new Error(`Not rejected with BadUserInputError but ${error}`)
}

async function errorsOf(input: DeployInput): Promise<FieldError[]> {
  const { fields } = (await rejectionOf(input)).extensions
  if (!Array.isArray(fields)) throw new Error('no fields')
  return fields
}

test('applies defaults and decodes the files', async () => {
  const input = files(
    { path: 'a.txt', content: 'é' },
    { path: 'run.sh', content: 'AP8=', encoding: 'BASE64', executable: true },
  )
  expect(await validate(input)).toEqual({
    org: 'octo',
    repo: 'demo',
    visibility: 'PRIVATE',
    description: null,
    branch: 'main',
    commitMessage: 'Initial commit',
    idempotencyKey: null,
    contents: {
      files: [
        { path: 'a.txt', content: Buffer.from('é'), executable: false },
        { path: 'run.sh', content: Buffer.from([0, 255]), executable: true },
      ],
      warnings: { messages: [], count: 0 },
    },
  })
})

test('treats null as missing', async () => {
  const nulls = {
    visibility: null,
    description: null,
    branch: null,
    commitMessage: null,
    idempotencyKey: null,
  }
  const file = { path: 'a', content: '', encoding: null, executable: null }
  const contents = { template: null, files: [file] }
  expect(await validate({ ...files(), ...nulls, contents })).toEqual(
    await validate(files({ path: 'a', content: '' })),
  )
})

test('reports every error at once, with its field', async () => {
  const errors = await errorsOf({
    org: '-octo',
    repo: 'demo.git',
    description: 'a\nb',
    branch: 'a b',
    commitMessage: ' ',
    idempotencyKey: 'a\0',
    contents: {
      files: [
        { path: '/etc/passwd', content: '' },
        { path: 'a/.GIT/config', content: '\ud800' },
        { path: 'ok', content: 'ok' },
        { path: 'b/../c', content: 'x', encoding: 'BASE64' },
        { path: 'ok', content: '' },
        { path: 'ok/x', content: '' },
      ],
    },
  })
  expect(errors.map((error) => error.path)).toEqual([
    'input.org',
    'input.repo',
    'input.description',
    'input.branch',
    'input.commitMessage',
    'input.idempotencyKey',
    'input.contents.files[0].path',
    'input.contents.files[1].path',
    'input.contents.files[1].content',
    'input.contents.files[3].path',
    'input.contents.files[3].content',
    'input.contents.files[4].path',
    'input.contents.files[5].path',
  ])
})

test('reports the errors of a template together with the others', async () => {
  const errors = await errorsOf({ org: '', repo: 'demo', contents: { template: { name: 'none' } } })
  expect(errors.map((error) => error.path)).toEqual(['input.org', 'input.contents.template.name'])
})

test('includes the first errors in the message, and the number of the others', async () => {
  const error = await rejectionOf(
    files(...Array.from({ length: 250 }, (_, n) => ({ path: `/${n}`, content: '' }))),
  )
  expect(error.message).toMatch(
    /^The input has 250 errors: input\.contents\.files\[0\]\.path must be relative/,
  )
  expect(error.message).toMatch(/and 247 more\.$/)
  expect(error.extensions).toMatchObject({ code: 'BAD_USER_INPUT', faultCount: 250 })
  expect(error.extensions.fields).toHaveLength(100)
})

test.each([[{}], [{ template: { name: 'a' }, files: [] }], [{ template: null, files: null }]])(
  'requires either a template or files: %j',
  async (contents) => {
    expect(await errorsOf({ org: 'octo', repo: 'demo', contents })).toEqual([
      { path: 'input.contents', reason: 'must have either "template" or "files", but not both' },
    ])
  },
)

test('requires at least one file and at most 20,000', async () => {
  const at = 'input.contents.files'
  expect(await errorsOf(files())).toEqual([{ path: at, reason: 'must have at least one file' }])
  const many = Array.from({ length: 20_001 }, (_, n) => ({ path: `${n}`, content: '' }))
  expect(await errorsOf(files(...many))).toEqual([
    { path: at, reason: 'must have at most 20000 files, but has 20001' },
  ])
})

const LARGE = files(
  ...Array.from({ length: 20_000 }, (_, n) => ({
    path: `folder-${n % 200}/sub.${n % 7}/file-${n}.txt`,
    content: `${n} ${'x'.repeat(1600)}`,
  })),
)

test('validates 20,000 files without blocking the event loop', async () => {
  let turns = 0
  let isDone = false
  const count = () => {
    turns += 1
    if (!isDone) setImmediate(count)
  }
  setImmediate(count)
  const { contents } = await validate(LARGE)
  isDone = true
  expect(contents.files).toHaveLength(20_000)
  expect(contents.files[19_999]?.content).toEqual(Buffer.from(`19999 ${'x'.repeat(1600)}`))
  expect(turns).toBeGreaterThan(1)
})

test('stops when aborted', async () => {
  const abort = new AbortController()
  const validation = validate(LARGE, abort.signal)
  abort.abort(new Error('the client has left'))
  await expect(validation).rejects.toThrow('the client has left')
  await expect(validate(LARGE, abort.signal)).rejects.toThrow('the client has left')
})

test('validates a small request within one turn of the event loop', async () => {
  let hasTurned = false
  const turn = setImmediate(() => {
    hasTurned = true
  })
  await validate(files({ path: 'a', content: 'a' }, { path: 'b', content: 'b' }))
  expect(hasTurned).toBe(false)
  clearImmediate(turn)
})

test('rejects any invalid input with BadUserInputError', async () => {
  const text = fc.string({ unit: 'binary', maxLength: 30 })
  const file = fc.record({
    path: text,
    content: text,
    encoding: fc.constantFrom('UTF8' as const, 'BASE64' as const, null),
  })
  const optional = fc.option(text)
  const anyInput = fc.record({
    org: text,
    repo: text,
    description: optional,
    branch: optional,
    commitMessage: optional,
    idempotencyKey: optional,
    contents: fc.record({ files: fc.array(file, { maxLength: 8 }) }),
  })
  await fc.assert(
    fc.asyncProperty(anyInput, async (input) => {
      const outcome = await validate(input).catch((error: unknown) => error)
      if (outcome instanceof Error) expect(outcome).toBeInstanceOf(BadUserInputError)
    }),
  )
})
