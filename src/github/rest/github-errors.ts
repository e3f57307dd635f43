import { stripVTControlCharacters } from 'node:util'
import { ForgeError, type ForgeErrorCode, type PushRejection } from '../forge-error.ts'
import type { PushReport } from './git-wire.ts'
import type { HttpResponse } from './http-client.ts'

/** What a person needs to be told besides what GitHub says. */
export interface CallDescription {
  /** Completes "GitHub …": `create the repository acme/site`. */
  action: string
  /** The page where a missing permission is granted. */
  grantHint: string
  /** Takes our own secrets out of what GitHub says. */
  redact(text: string): string
}

/** GitHub's `errors[]`: fields may be absent, and an item may be a mere string. */
interface ErrorBody {
  message: string
  errors: string[]
}

const MAX_QUOTE_LENGTH = 1_000

/** An answer that is not what was hoped for, as an error with what to do about it. */
export function toForgeError(answer: HttpResponse, doing: CallDescription): ForgeError {
  const { status, headers } = answer
  const told = quotedMessage(answer, doing)
  const make = (code: ForgeErrorCode, message: string) =>
    new ForgeError(code, message, {
      status,
      ...(headers['x-github-request-id'] && { requestId: headers['x-github-request-id'] }),
    })
  switch (status) {
    case 401:
      return make(
        'UNAUTHENTICATED',
        `GitHub does not accept the credential${told}. It may have expired or been revoked. Give Shipcast a valid one (${doing.grantHint}), start it anew, then retry.`,
      )
    case 403:
      return make('FORBIDDEN', `${forbiddenMessage(answer, doing)}${told && ` GitHub says${told}.`}`)
    case 404:
      return make(
        'NOT_FOUND',
        `GitHub cannot ${doing.action}: what that needs is not there, or this credential may not see it${told}. Check the name and the credential's permissions (${doing.grantHint}), then retry.`,
      )
    case 409:
      return make(
        'CONFLICT',
        `GitHub did not ${doing.action}: something is in the way${told}. Look, then retry.`,
      )
    case 410:
    case 451:
      return make(
        'GONE',
        `GitHub will not ${doing.action}: it has been taken away (${status})${told}. Look at it on GitHub, then retry or start a new deployment.`,
      )
    case 400:
    case 422:
      return make('INVALID', `GitHub refuses to ${doing.action}${told}. Mend that, then retry.`)
  }
  if (status === 408 || status >= 500) {
    return make('TRANSIENT', `GitHub could not ${doing.action} at the moment (${status}${told}).`)
  }
  return make(
    'UNEXPECTED',
    `GitHub answered the request to ${doing.action} in a way that Shipcast does not know (${status}${told}). Report this, or retry.`,
  )
}

/** Which of the ways to be forbidden it is: GitHub tells by headers, for each kind of credential another. */
function forbiddenMessage(
  { headers }: HttpResponse,
  { action: what, grantHint: grantAt }: CallDescription,
): string {
  const sso = /required;\s*url=(\S+)/.exec(headers['x-github-sso'] ?? '')?.[1]
  if (sso !== undefined) {
    return `This credential may not ${what} before it is authorized for the organization's single sign-on. Authorize it at ${sso}, then retry.`
  }
  const accepted = headers['x-accepted-github-permissions']
  if (accepted !== undefined) {
    return `This credential lacks a permission to ${what}: it needs ${formatPermissions(accepted)}. Grant it at ${grantAt}, then retry.`
  }
  const scopes = headers['x-accepted-oauth-scopes']
  const has = headers['x-oauth-scopes']
  if (scopes && has !== undefined && !overlaps(scopes, has)) {
    return `This credential lacks a scope to ${what}: it needs one of ${scopes}, and has ${has || 'none'}. Grant it at ${grantAt}, then retry.`
  }
  return `This credential may not ${what}. Ask an owner of the organization to allow it, or grant it at ${grantAt}, then retry.`
}

/** `administration=write,contents=read; organization_administration=write`: all of one group, or of another. */
function formatPermissions(header: string): string {
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
function quotedMessage(answer: HttpResponse, { redact: scrub }: CallDescription): string {
  const { message, errors } = errorBody(answer)
  const text = scrub([message, ...errors].filter((each) => each !== '').join('; '))
  return text === '' ? '' : `: “${toPlainLine(text)}”`
}

/** One line without escape codes or anything else that moves a cursor, and at most so long. */
export function toPlainLine(text: string, maxLength = MAX_QUOTE_LENGTH): string {
  const line = stripVTControlCharacters(text)
    .replace(/[\p{Cc}\p{Cf}\s]+/gu, ' ')
    .trim()
    .replace(/\.$/, '')
  return truncate(line, maxLength)
}

/** At most so many characters, the last of which says that there were more. */
export function truncate(text: string, maxLength: number): string {
  if (text.length <= maxLength) return text
  // Not in the middle of a character of two code units.
  return `${text.slice(0, maxLength - 1).replace(/[\uD800-\uDBFF]$/, '')}…`
}

function errorBody({ body, headers }: HttpResponse): ErrorBody {
  const json = headers['content-type']?.includes('json') ? parseJson(body) : undefined
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
export function parseJson(body: Buffer): unknown {
  try {
    return JSON.parse(body.toString('utf8'))
  } catch {
    return undefined // a proxy's page, say; what it means is told by the status
  }
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** What a person needs to be told besides what GitHub says. */
export interface RefusedPush {
  report: PushReport
  /** For people: `acme/site`. */
  repository: string
  /** Where git pushes to. */
  url: string
  /** GitHub's page, where settings are. */
  web: string
  /** Takes our own secrets out of what GitHub says. */
  redact(text: string): string
}

interface Refusal {
  code: ForgeErrorCode
  reason?: PushRejection
  /** What happened, and what to do about it. A retry pushes the same contents. */
  advice: string
}

/** GitHub lists every secret that it finds, with a path and an address for each; the whole is in the log. */
const MAX_PUSH_QUOTE_LENGTH = 6_000
const MAX_PUSH_QUOTE_LENGTHD_LINE = 1_000

/**
 * Why GitHub declined a push, from what it says to people: there is no other way. It decides only what a person is told,
 * and whether a retry can help; that the push was declined is known from the report. Texts: GitHub's docs on GH001,
 * GH007 and GH013, and users' reports.
 */
export function toRefusalError(push: RefusedPush): ForgeError {
  const words = refusalText(push)
  const { code, reason, advice } = classifyRefusal(words, push)
  const quoted = toPlainLine(push.redact(shorten(words.split('\n'))), MAX_PUSH_QUOTE_LENGTH)
  return new ForgeError(code, `${advice} GitHub says: “${quoted}”.`, reason && { reason })
}

/** All that was said, a line each, without escape codes and decoration. */
export function refusalText({ report: { messages, unpack, ref }, redact: scrub }: RefusedPush): string {
  const reasons = [messages, unpack === 'ok' ? '' : unpack, ref === 'ok' ? '' : ref]
  return scrub(stripVTControlCharacters(reasons.join('\n')))
    .split(/[\r\n]+/)
    .map((line) =>
      line
        .replace(/[\p{Cc}\p{Cf}\s]+/gu, ' ')
        .trim()
        .replace(/^(remote:\s*)+/, '')
        // `—— GitHub Personal Access Token ————`
        .replace(/^[-–—─━=]{2,}\s+|\s+[-–—─━=]{2,}$/gu, ''),
    )
    .filter((line) => /[\p{L}\p{N}]/u.test(line))
    .join('\n')
}

/** What fits: first of all how it begins, addresses and paths, which say what is meant and where it can be allowed. */
function shorten(lines: readonly string[]): string {
  const rank = (index: number) => (index === 0 || /https?:\/\/|\bpath:/i.test(lines[index] ?? '') ? 0 : 1)
  const kept = new Set<number>()
  const rest = ' … (the rest is in the log)'
  let room = MAX_PUSH_QUOTE_LENGTH - rest.length
  for (const index of [...lines.keys()].sort((a, b) => rank(a) - rank(b) || a - b)) {
    const length = Math.min(lines[index]?.length ?? 0, MAX_PUSH_QUOTE_LENGTHD_LINE) + 1
    if (length > room) continue
    room -= length
    kept.add(index)
  }
  const text = lines
    .filter((_, index) => kept.has(index))
    .map((line) => truncate(line, MAX_PUSH_QUOTE_LENGTHD_LINE))
  return text.join(' ') + (kept.size < lines.length ? rest : '')
}

function classifyRefusal(words: string, { report, repository, url, web }: RefusedPush): Refusal {
  // A warning may have a code, too, and a path may look like one.
  const number = /^(?:error: )?GH(\d{3})\b/m.exec(words)?.[1]
  if (number === '001' || /exceeds GitHub'?s file size limit|pack exceeds maximum/i.test(words)) {
    return {
      code: 'TOO_LARGE',
      advice:
        'A file, or the whole push, is larger than GitHub accepts (100 MB a file, 2 GB a push). Start a new deployment without it, or keep it elsewhere.',
    }
  }
  if (/refusing to allow/i.test(words) && /create or update .{0,500}workflow/i.test(words)) {
    return {
      code: 'PUSH_REJECTED',
      reason: 'workflow-scope',
      advice: `The contents have files in .github/workflows, which this credential may not push to ${repository}. Give a classic token the scope workflow, or a fine-grained token or App the permission Workflows: write; then retry.`,
    }
  }
  if (number === '002' || number === '005') {
    return {
      code: 'INVALID_NAME',
      advice: 'GitHub does not accept a branch of this name. Start a new deployment with another branch.',
    }
  }
  if (number === '007') {
    return {
      code: 'PUSH_REJECTED',
      reason: 'email-privacy',
      advice: `The settings of a GitHub account block commits that show its email address. Its owner can allow them at ${web}/settings/emails; then retry.`,
    }
  }
  if (number === '008') {
    return {
      code: 'PUSH_REJECTED',
      reason: 'lfs-objects-missing',
      advice: `The contents have Git LFS pointers to objects that ${repository} does not have. Upload these objects (git lfs push --object-id ${url} <object id>), then retry; or start a new deployment with the files themselves instead of the pointers.`,
    }
  }
  if (number === '009' && /\bLFS\b/.test(words)) {
    return {
      code: 'PUSH_REJECTED',
      reason: 'lfs-objects-missing',
      advice: `GitHub could not check the Git LFS objects of ${repository}. Retry later; if it happens again, ask GitHub's support.`,
    }
  }
  if (number === '009' || /cannot contain secrets|secrets? detected/i.test(words)) {
    return {
      code: 'PUSH_REJECTED',
      reason: 'secret',
      advice: `GitHub found what look like secrets in the contents, and does not accept them in ${repository}. If they may be published, allow each at the address that GitHub names, then retry. Otherwise revoke them, and start a new deployment without them.`,
    }
  }
  if (
    (number !== undefined && ['003', '006', '013', '014'].includes(number)) ||
    /rule violations?|protected branch/i.test(words)
  ) {
    return {
      code: 'PUSH_REJECTED',
      reason: 'rule-violation',
      advice: `A rule of ${repository} or of its organization does not allow this push. Have the rule changed, or bypassed for this credential, then retry; or start a new deployment that follows the rule.`,
    }
  }
  if (report.unpack !== 'ok') {
    return {
      code: 'PUSH_REJECTED',
      reason: 'bad-objects',
      advice: `GitHub could not store the contents of ${repository}. Retry; if it happens again, report it.`,
    }
  }
  const decliner = number === undefined ? `A hook of ${repository} or of its organization` : 'GitHub'
  return {
    code: 'PUSH_REJECTED',
    reason: 'declined',
    advice: `${decliner} declined the push to ${repository}. If the cause is outside of the contents, have it removed, then retry; otherwise start a new deployment with other contents.`,
  }
}
