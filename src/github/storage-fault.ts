import { GitHubError } from './github-error.ts'

/** Makes a fault of the disk a GitHubError that says what to do; anything else stays what it is. */
export function explainStorageFault(error: unknown, folder: string): unknown {
  if (!(error instanceof Error && 'code' in error && 'syscall' in error)) return error
  switch (error.code) {
    case 'ENOSPC':
    case 'EDQUOT':
      return storage(`There is no space left for repositories in ${folder}. Free some, then retry.`, error)
    case 'EACCES':
    case 'EPERM':
      return storage(
        `Repositories cannot be written to ${folder}: permission denied. Give the user that runs Shipcast the right to write there, or set DATA_DIR to another folder, then retry.`,
        error,
      )
    case 'EROFS':
      return storage(
        `Repositories cannot be written to ${folder}: it is read-only. Mount it writable, or set DATA_DIR to another folder, then retry.`,
        error,
      )
    case 'ENOTDIR':
    case 'ENOENT':
    case 'EEXIST':
      return storage(
        `${folder} is not, or no longer, a folder for repositories: ${error.message}. Restore it, or set DATA_DIR to another folder, then retry.`,
        error,
      )
    case 'EMFILE':
    case 'ENFILE':
    case 'EBUSY':
    case 'EAGAIN':
      return new GitHubError('TRANSIENT', 'The disk is busy; this will be tried again.', { cause: error })
    default:
      return storage(
        `The disk failed while writing to ${folder}: ${error.message}. Check it, then retry.`,
        error,
      )
  }
}

function storage(message: string, cause: Error): GitHubError {
  return new GitHubError('STORAGE', message, { cause })
}
