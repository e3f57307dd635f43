import { stripVTControlCharacters } from 'node:util'
import { z } from 'zod'
import { ForgeError, type ForgeErrorCode } from '../forge-error.ts'
import type { HttpResponse } from './http-client.ts'

/** What an error message says about the call, besides GitHub's own message. */
export interface CallDescription {
  /** Completes "the request to …" and "is not allowed to …": `create the repository acme/site`. */
  action: string
  /** The page where a missing permission is granted. */
  grantHint: string
  /** Removes our own secrets from GitHub's message. */
  redact(text: string): string
}

const MAX_QUOTE_LENGTH = 1_000

/** The error for an unexpected response: what happened, then what to do. */
export function toForgeError(response: HttpResponse, call: CallDescription): ForgeError {
  const { status, headers } = response
  const { action, grantHint } = call
  const quote = quoteMessage(response, call)
  const error = (code: ForgeErrorCode, message: string) =>
    new ForgeError(code, message, {
      status,
      ...(headers['x-github-request-id'] && { requestId: headers['x-github-request-id'] }),
    })
  switch (status) {
    case 401:
      return error(
        'UNAUTHENTICATED',
        `GitHub rejected the credential${quote}. It may have expired or been revoked. Configure a valid one (${grantHint}), restart Shipcast, then retry.`,
      )
    case 403:
      return error('FORBIDDEN', `${forbiddenMessage(response, call)}${quote && ` GitHub says${quote}.`}`)
    case 404:
      return error(
        'NOT_FOUND',
        `The request to ${action} failed: the target does not exist, or this credential cannot see it${quote}. Check the name and the credential's permissions (${grantHint}), then retry.`,
      )
    case 409:
      return error(
        'CONFLICT',
        `The request to ${action} failed because of a conflict${quote}. Resolve it on GitHub, then retry.`,
      )
    case 410:
    case 451:
      return error(
        'GONE',
        `The request to ${action} failed: the target has been removed or blocked (${status}${quote}). Check it on GitHub, then retry or start a new deployment.`,
      )
    case 400:
    case 422:
      return error('INVALID', `GitHub refused the request to ${action}${quote}. Fix the cause, then retry.`)
  }
  if (status === 408 || status >= 500) {
    return error('TRANSIENT', `GitHub could not complete the request to ${action} (${status}${quote}).`)
  }
  return error(
    'UNEXPECTED',
    `GitHub sent an unexpected response to the request to ${action} (${status}${quote}). Retry; if it happens again, report it.`,
  )
}

/** GitHub gives the reason in headers, which differ by the kind of credential. */
function forbiddenMessage({ headers }: HttpResponse, { action, grantHint }: CallDescription): string {
  const ssoUrl = /required;\s*url=(\S+)/.exec(headers['x-github-sso'] ?? '')?.[1]
  if (ssoUrl !== undefined) {
    return `This credential must be authorized for the organization's single sign-on before it can ${action}. Authorize it at ${ssoUrl}, then retry.`
  }
  const permissions = headers['x-accepted-github-permissions']
  if (permissions !== undefined) {
    return `This credential lacks a permission to ${action}: it needs ${formatPermissions(permissions)}. Grant it at ${grantHint}, then retry.`
  }
  const acceptedScopes = headers['x-accepted-oauth-scopes']
  const scopes = headers['x-oauth-scopes']
  if (acceptedScopes && scopes !== undefined && !haveCommonScope(acceptedScopes, scopes)) {
    return `This credential lacks a scope to ${action}: it needs one of ${acceptedScopes} but has ${scopes || 'none'}. Grant it at ${grantHint}, then retry.`
  }
  return `This credential is not allowed to ${action}. Ask an owner of the organization to allow it, or grant access at ${grantHint}, then retry.`
}

/**
 * `administration=write,contents=read; organization_administration=write`: all of one
 * group, or all of another.
 */
function formatPermissions(header: string): string {
  return header
    .split(';')
    .map((group) =>
      group
        .split(',')
        .map((permission) => permission.trim().replace('=', ': '))
        .join(' and '),
    )
    .join(', or ')
}

function haveCommonScope(a: string, b: string): boolean {
  const scopes = new Set(parseScopes(a))
  return parseScopes(b).some((scope) => scopes.has(scope))
}

/** A header's comma-separated scopes. */
export function parseScopes(header: string): string[] {
  return header.split(',').flatMap((scope) => scope.trim() || [])
}

/** GitHub's message in quotation marks after a colon, or an empty string. */
function quoteMessage({ body }: HttpResponse, { redact }: CallDescription): string {
  const { message, errors } = parseErrorBody(body)
  const texts = [message, ...errors.map(describeErrorItem)]
  const text = redact(texts.filter((each) => each !== '').join('; '))
  return text === '' ? '' : `: “${toPlainLine(text)}”`
}

function describeErrorItem({ message, field, code }: ErrorItem): string {
  return message ?? [field, code].filter((each) => each !== undefined).join(': ')
}

/** One line without escape codes or other control characters, of limited length. */
export function toPlainLine(text: string, maxLength = MAX_QUOTE_LENGTH): string {
  const line = stripVTControlCharacters(text)
    .replace(/[\p{Cc}\p{Cf}\s]+/gu, ' ')
    .trim()
    .replace(/\.$/, '')
  return truncate(line, maxLength)
}

/** Ends in an ellipsis if it is cut. */
export function truncate(text: string, maxLength: number): string {
  if (text.length <= maxLength) return text
  // Never cuts between the two code units of a character.
  return `${text.slice(0, maxLength - 1).replace(/[\uD800-\uDBFF]$/, '')}…`
}

const MAX_ERROR_ITEMS = 10

const OptionalText = z.string().optional().catch(undefined)

/** Every field may be absent, and the REST API sometimes sends a bare string. */
const ErrorItem = z.preprocess(
  (item) => (typeof item === 'string' ? { message: item } : item),
  z.object({ type: OptionalText, field: OptionalText, code: OptionalText, message: OptionalText }).catch({}),
)
type ErrorItem = z.output<typeof ErrorItem>

/** Any body is an error body, even a proxy's page: missing fields are empty. */
const ErrorBody = z
  .object({
    message: z.string().catch(''),
    errors: z.preprocess(
      (errors) => (Array.isArray(errors) ? errors.slice(0, MAX_ERROR_ITEMS) : []),
      z.array(ErrorItem),
    ),
  })
  .catch({ message: '', errors: [] })

/** The error body of the REST API and of GraphQL. */
export function parseErrorBody(body: Buffer): z.output<typeof ErrorBody> {
  return ErrorBody.parse(parseJson(body))
}

/** Undefined if the body is not JSON. */
export function parseJson(body: Buffer): unknown {
  try {
    return JSON.parse(body.toString('utf8'))
  } catch {
    return undefined
  }
}
