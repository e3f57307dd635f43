import { withFileLock } from '../../../src/github/local/file-lock.ts'

/* fork hold-lock.ts <lock> <temporary folder>: sends "held" when it holds the lock, and keeps it. */

process.on('message', () => {}) // keeps the process alive
const [, , lock = '', temporaryFolder = ''] = process.argv
await withFileLock(lock, temporaryFolder, new AbortController().signal, async () => {
  process.send?.('held')
  await new Promise(() => {})
})
