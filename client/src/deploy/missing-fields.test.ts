import { expect, test } from '@jest/globals'
import { type FormState, findMissingFields } from './missing-fields.ts'

const complete: FormState = {
  org: 'acme',
  repo: 'hello',
  source: 'template',
  hasTemplate: true,
  files: 'none',
  deploysTo: null,
}

const pathsOf = (state: Partial<FormState>) =>
  findMissingFields({ ...complete, ...state }).map(({ path }) => path)

test('a complete form has no missing fields', () => {
  expect(pathsOf({})).toEqual([])
  expect(pathsOf({ source: 'files', hasTemplate: false, files: 'read' })).toEqual([])
})

test('names every missing field at once', () => {
  expect(pathsOf({ org: ' ', repo: '', hasTemplate: false })).toEqual(['org', 'repo', 'contents'])
})

test('only the selected source counts', () => {
  expect(pathsOf({ source: 'template', files: 'failed' })).toEqual([])
  expect(pathsOf({ source: 'files', files: 'failed' })).toEqual(['contents.files'])
})

test('files must be read completely', () => {
  const [error] = findMissingFields({ ...complete, source: 'files', files: 'reading' })
  expect(error).toEqual({ path: 'contents.files', reason: 'must be read first: wait until reading is done' })
})

test('names the organizations that the user can deploy to', () => {
  const [error] = findMissingFields({ ...complete, org: 'globex', deploysTo: ['acme', 'labs'] })
  expect(error?.reason).toBe('must be an organization that you can deploy to: acme and labs')
  expect(pathsOf({ org: ' ACME ', deploysTo: ['acme'] })).toEqual([])
})
