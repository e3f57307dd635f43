import { expect, test } from '@jest/globals'
import { collectPicked, MAX_FILES, TooManyFilesError } from './collect-files.ts'

function picked(path: string): File {
  const file = new File([''], path.split('/').at(-1) ?? '')
  return Object.assign(file, { webkitRelativePath: path.includes('/') ? path : '' })
}

function collect(...paths: string[]) {
  const { files, ignoredCount } = collectPicked(paths.map(picked))
  return { paths: files.map(({ path }) => path), ignoredCount }
}

test('paths in a folder start below it', () => {
  expect(collect('site/index.html', 'site/css/main.css').paths).toEqual(['index.html', 'css/main.css'])
})

test('individual files lie at the root', () => {
  expect(collect('README.md', 'run.sh').paths).toEqual(['README.md', 'run.sh'])
})

test('ignores and counts .git folders and operating system files at any depth', () => {
  const ignored = ['.git/config', 'docs/.git/HEAD', '.DS_Store', 'docs/._notes', 'thumbs.DB', '__MACOSX/x']
  const kept = ['.gitignore', '.github/ci.yml', 'git', 'docs/.gitkeep', 'Thumbs.db.md']
  const all = [...ignored, ...kept].map((path) => `folder/${path}`)
  expect(collect(...all)).toEqual({ paths: kept, ignoredCount: ignored.length })
})

test('stops at more files than a deployment can contain; ignored ones do not count', () => {
  const file = picked('folder/file')
  const full = Array.from({ length: MAX_FILES }, () => file)
  expect(collectPicked([...full, picked('folder/.DS_Store')]).files).toHaveLength(MAX_FILES)
  expect(() => collectPicked([...full, file])).toThrow(TooManyFilesError)
})
