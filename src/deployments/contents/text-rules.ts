import { NOT_WELL_FORMED } from '../../github/repository-names.ts'

/*
 * The rules for texts of a request. Each function returns what is wrong with a value, each reason completing
 * "<field> …". A value that is too long gets only that reason.
 */

const MAX_MESSAGE_BYTES = 64 * 1024
const MAX_DESCRIPTION_LENGTH = 350
const MAX_KEY_LENGTH = 255

export function validateCommitMessage(message: string): string[] {
  if (message.length > MAX_MESSAGE_BYTES || Buffer.byteLength(message) > MAX_MESSAGE_BYTES) {
    return [`must be at most ${MAX_MESSAGE_BYTES} bytes`]
  }
  if (message.trim() === '') return ['must not be empty']
  return validateText(message)
}

export function validateDescription(description: string): string[] {
  // A character is at most two code units.
  if (description.length > 2 * MAX_DESCRIPTION_LENGTH || [...description].length > MAX_DESCRIPTION_LENGTH) {
    return [`must be at most ${MAX_DESCRIPTION_LENGTH} characters`]
  }
  const reasons: string[] = []
  if (!description.isWellFormed()) reasons.push(NOT_WELL_FORMED)
  if (/\p{Cc}/u.test(description)) {
    reasons.push('must be a single line without control characters')
  }
  return reasons
}

/** Keys are compared exactly: "é" composed and decomposed are two keys. */
export function validateIdempotencyKey(key: string): string[] {
  if (key === '') return ['must not be empty']
  // A character is at most two code units.
  if (key.length > 2 * MAX_KEY_LENGTH || [...key].length > MAX_KEY_LENGTH)
    return [`must be at most ${MAX_KEY_LENGTH} characters`]
  const reasons: string[] = []
  if (!key.isWellFormed()) reasons.push(NOT_WELL_FORMED)
  if (/\p{Cc}/u.test(key)) reasons.push('must not contain control characters')
  return reasons
}

/** Text of several lines: newline and tab are the only control characters. */
export function validateText(text: string): string[] {
  const reasons: string[] = []
  if (!text.isWellFormed()) reasons.push(NOT_WELL_FORMED)
  if (/[^\P{Cc}\n\t]/u.test(text)) {
    reasons.push('must not contain control characters other than newline (\\n) and tab')
  }
  return reasons
}
