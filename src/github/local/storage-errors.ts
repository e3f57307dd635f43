import { ForgeError } from '../forge-error.ts'

interface SystemError {
  code: string
  syscall: string
  message: string
}

/** Whether this is an error of the operating system with one of these codes. */
export function hasCode(error: unknown, ...codes: string[]): boolean {
  return isSystemError(error) && codes.includes(error.code)
}

/**
 * Converts an error of the disk to a ForgeError that says what to do. Returns other errors unchanged,
 * including a lost connection to the database that contents are read from, whose codes are similar.
 */
export function toStorageError(error: unknown, folder: string): unknown {
  if (!isSystemError(error) || error.syscall === 'connect') return error
  switch (error.code) {
    case 'ENOSPC':
    case 'EDQUOT':
      return storageError(
        `No space is left for repositories in ${folder}. Free some space, then retry.`,
        error,
      )
    case 'EACCES':
    case 'EPERM':
      return storageError(
        `Repositories cannot be written to ${folder}: permission denied. Give the user that runs Shipcast write permission there, or set DATA_DIR to another folder, then retry.`,
        error,
      )
    case 'EROFS':
      return storageError(
        `Repositories cannot be written to ${folder}: it is read-only. Mount it writable, or set DATA_DIR to another folder, then retry.`,
        error,
      )
    case 'ENOTDIR':
    case 'ENOENT':
    case 'EEXIST':
      return storageError(
        `${folder} is not a usable folder for repositories: ${error.message}. Restore it, or set DATA_DIR to another folder, then retry.`,
        error,
      )
    case 'EMFILE':
    case 'ENFILE':
    case 'EBUSY':
    case 'EAGAIN':
      return new ForgeError('TRANSIENT', 'The disk is busy. The step will be retried.', { cause: error })
    case 'EIO':
      return storageError(
        `The disk failed while writing to ${folder}: ${error.message}. Check it, then retry.`,
        error,
      )
    default:
      return error
  }
}

function storageError(message: string, cause: SystemError): ForgeError {
  return new ForgeError('STORAGE', message, { cause })
}

// Not `instanceof Error`: under Jest, Node's errors belong to another realm.
function isSystemError(error: unknown): error is SystemError {
  return typeof error === 'object' && error !== null && 'code' in error && 'syscall' in error
}
