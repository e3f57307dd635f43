import { stripVTControlCharacters } from 'node:util'
import { GitHubError, type GitHubErrorCode } from '../github-error.ts'
import type { HttpAnswer } from './transport.ts'

/** What a person needs to be told besides what GitHub says. */
export interface Doing {
  /** Completes "GitHub …": `create the repository acme/site`. */
  what: string
  /** The page where a missing permission is granted. */
  grantAt: string
  /** Takes our own secrets out of what GitHub says. */
  scrub(text: string): string
}

/** GitHub's `errors[]`: fields may be absent, and an item may be a mere string. */
interface ErrorBody {
  message: string
  errors: string[]
}

const MAX_QUOTE = 1_000

/** An answer that is not what was hoped for, as an error with what to do about it. */
export function explain(answer: HttpAnswer, doing: Doing): GitHubError {
  const { status, headers } = answer
  const told = quote(answer, doing)
  const make = (code: GitHubErrorCode, message: string) =>
    new GitHubError(code, message, {
      status,
      ...(headers['x-github-request-id'] && { requestId: headers['x-github-request-id'] }),
    })
  switch (status) {
    case 401:
      return make(
        'UNAUTHENTICATED',
        `GitHub does not accept the credential${told}. It may have expired or been revoked. Give Shipcast a valid one (${doing.grantAt}), start it anew, then retry.`,
      )
    case 403:
      return make('FORBIDDEN', `${forbidden(answer, doing)}${told && ` GitHub says${told}.`}`)
    case 404:
      return make(
        'NOT_FOUND',
        `GitHub cannot ${doing.what}: what that needs is not there, or this credential may not see it${told}. Check the name and the credential's permissions (${doing.grantAt}), then retry.`,
      )
    case 409:
      return make(
        'CONFLICT',
        `GitHub did not ${doing.what}: something is in the way${told}. Look, then retry.`,
      )
    case 410:
    case 451:
      return make(
        'GONE',
        `GitHub will not ${doing.what}: it has been taken away (${status})${told}. Look at it on GitHub, then retry or start a new deployment.`,
      )
    case 400:
    case 422:
      return make('INVALID', `GitHub refuses to ${doing.what}${told}. Mend that, then retry.`)
  }
  if (status === 408 || status >= 500) {
    return make('TRANSIENT', `GitHub could not ${doing.what} at the moment (${status}${told}).`)
  }
  return make(
    'UNEXPECTED',
    `GitHub answered the request to ${doing.what} in a way that Shipcast does not know (${status}${told}). Report this, or retry.`,
  )
}

/** Which of the ways to be forbidden it is: GitHub tells by headers, for each kind of credential another. */
function forbidden({ headers }: HttpAnswer, { what, grantAt }: Doing): string {
  const sso = /required;\s*url=(\S+)/.exec(headers['x-github-sso'] ?? '')?.[1]
  if (sso !== undefined) {
    return `This credential may not ${what} before it is authorized for the organization's single sign-on. Authorize it at ${sso}, then retry.`
  }
  const accepted = headers['x-accepted-github-permissions']
  if (accepted !== undefined) {
    return `This credential lacks a permission to ${what}: it needs ${permissions(accepted)}. Grant it at ${grantAt}, then retry.`
  }
  const scopes = headers['x-accepted-oauth-scopes']
  const has = headers['x-oauth-scopes']
  if (scopes && has !== undefined && !overlaps(scopes, has)) {
    return `This credential lacks a scope to ${what}: it needs one of ${scopes}, and has ${has || 'none'}. Grant it at ${grantAt}, then retry.`
  }
  return `This credential may not ${what}. Ask an owner of the organization to allow it, or grant it at ${grantAt}, then retry.`
}

/** `administration=write,contents=read; organization_administration=write`: all of one group, or of another. */
function permissions(header: string): string {
  return header
    .split(';')
    .map((group) =>
      group
        .split(',')
        .map((each) => each.trim().replace('=', ': '))
        .join(' and '),
    )
    .join(', or ')
}

function overlaps(wanted: string, had: string): boolean {
  const scopes = new Set(had.split(',').map((scope) => scope.trim()))
  return wanted.split(',').some((scope) => scopes.has(scope.trim()))
}

/** What GitHub says, in quotation marks, after a colon; nothing where it says nothing. */
function quote(answer: HttpAnswer, { scrub }: Doing): string {
  const { message, errors } = errorBody(answer)
  const text = scrub([message, ...errors].filter((each) => each !== '').join('; '))
  return text === '' ? '' : `: “${plain(text)}”`
}

/** One line without escape codes or anything else that moves a cursor, and at most so long. */
export function plain(text: string, maxLength = MAX_QUOTE): string {
  const line = stripVTControlCharacters(text)
    .replace(/[\p{Cc}\p{Cf}\s]+/gu, ' ')
    .trim()
    .replace(/\.$/, '')
  return cut(line, maxLength)
}

/** At most so many characters, the last of which says that there were more. */
export function cut(text: string, maxLength: number): string {
  if (text.length <= maxLength) return text
  // Not in the middle of a character of two code units.
  return `${text.slice(0, maxLength - 1).replace(/[\uD800-\uDBFF]$/, '')}…`
}

function errorBody({ body, headers }: HttpAnswer): ErrorBody {
  const json = headers['content-type']?.includes('json') ? parse(body) : undefined
  const { message, errors } = isObject(json) ? json : {}
  return {
    message: typeof message === 'string' ? message : '',
    errors: Array.isArray(errors) ? errors.slice(0, 10).map(errorItem) : [],
  }
}

function errorItem(item: unknown): string {
  if (typeof item === 'string') return item
  if (!isObject(item)) return ''
  const { field, code, message } = item
  if (typeof message === 'string') return message
  return [field, code].filter((each) => typeof each === 'string').join(': ')
}

/** JSON of a body, or undefined. */
export function parse(body: Buffer): unknown {
  try {
    return JSON.parse(body.toString('utf8'))
  } catch {
    return undefined // a proxy's page, say; what it means is told by the status
  }
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
