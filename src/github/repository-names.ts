import { ForgeError } from './forge-error.ts'

/*
 * The rules for names of organizations, repositories and branches on every forge. `validate…` returns what is
 * wrong with a name, each reason completing "<name> …"; a name that is too long gets only that reason. The
 * others throw `INVALID_NAME`.
 */

const MAX_ORG_LENGTH = 39
const MAX_REPO_LENGTH = 100
/** GitHub allows references of 255 bytes, including `refs/heads/`. */
const MAX_BRANCH_BYTES = 244

export const NOT_WELL_FORMED = 'must be well-formed Unicode, without lone surrogates'

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

export function requireValidOrg(org: string): void {
  rejectInvalidName('organization', org, validateOrg(org))
}

/** Of any account on GitHub: Enterprise Server has had longer ones, and underscores. */
export function requireValidLogin(login: string): void {
  const isValid = /^[A-Za-z0-9][A-Za-z0-9_-]{0,99}$/.test(login)
  const reason = 'must be 1 to 100 of the characters A–Z a–z 0–9 _ -, beginning with a letter or digit'
  rejectInvalidName('organization', login, isValid ? [] : [reason])
}

export function requireValidRepo(repo: string): void {
  rejectInvalidName('repository', repo, validateRepo(repo))
}

/** The full name of a branch: `refs/heads/main`. */
export function branchRef(branch: string): string {
  rejectInvalidName('branch', branch, validateBranch(branch))
  return `refs/heads/${branch}`
}

function rejectInvalidName(kind: string, name: string, [reason]: readonly string[]): void {
  if (reason !== undefined) throw new ForgeError('INVALID_NAME', `The ${kind} name "${name}" ${reason}.`)
}
