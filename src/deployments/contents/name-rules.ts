/*
 * The rules for the fields of a request other than its contents. Each function returns what is wrong with a value, as
 * the end of "<field> …". A value that is too long gets that one reason only and is not examined further.
 */

const MAX_ORG_LENGTH = 39
const MAX_REPO_LENGTH = 100
/** GitHub allows references of 255 bytes, including `refs/heads/`. */
const MAX_BRANCH_BYTES = 244
const MAX_MESSAGE_BYTES = 64 * 1024
const MAX_DESCRIPTION_LENGTH = 350
const MAX_KEY_LENGTH = 255

const NOT_WELL_FORMED = 'must be well-formed Unicode, without lone surrogates'

/** A GitHub login. */
export function validateOrg(org: string): string[] {
  if (org.length <= MAX_ORG_LENGTH && /^[A-Za-z0-9]+(?:-[A-Za-z0-9]+)*$/.test(org)) return []
  return [
    `must be 1 to ${MAX_ORG_LENGTH} letters (A–Z), digits or single hyphens, with no hyphen at either end`,
  ]
}

/** A GitHub repository name; GitHub's own URLs use the suffixes. */
export function validateRepo(repo: string): string[] {
  if (repo.length > MAX_REPO_LENGTH || !/^[A-Za-z0-9._-]+$/.test(repo)) {
    return [`must be 1 to ${MAX_REPO_LENGTH} of the characters A–Z a–z 0–9 . _ -`]
  }
  if (repo === '.' || repo === '..') return ['must not be "." or ".."']
  if (/\.(?:git|wiki)$/i.test(repo)) return ['must not end in ".git" or ".wiki"']
  return []
}

/** git-check-ref-format(1), and GitHub's additional rules. */
export function validateBranch(branch: string): string[] {
  if (branch === '') return ['must not be empty']
  if (Buffer.byteLength(branch) > MAX_BRANCH_BYTES) return [`must be at most ${MAX_BRANCH_BYTES} bytes`]
  const parts = branch.split('/')
  const reasons: string[] = []
  if (!branch.isWellFormed()) reasons.push(NOT_WELL_FORMED)
  if (/[\p{Cc} ~^:?*[\\]/u.test(branch)) {
    reasons.push('must not contain spaces, control characters or any of ~ ^ : ? * [ \\')
  }
  if (parts.includes('')) reasons.push('must not begin or end with "/" or contain "//"')
  if (parts.some((part) => part.startsWith('.'))) reasons.push('must not have a part that begins with "."')
  if (parts.some((part) => part.endsWith('.lock'))) reasons.push('must not have a part that ends in ".lock"')
  if (branch.includes('..') || branch.endsWith('.')) reasons.push('must not contain ".." or end with "."')
  if (branch.includes('@{') || branch === '@') reasons.push('must not be "@" or contain "@{"')
  if (branch.startsWith('-')) reasons.push('must not begin with "-"')
  if (branch === 'HEAD' || branch.startsWith('refs/'))
    reasons.push('must not be "HEAD" or begin with "refs/"')
  if (/^[0-9a-f]{40}$/i.test(branch)) reasons.push('must not look like a commit id (40 hex digits)')
  return reasons
}

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
