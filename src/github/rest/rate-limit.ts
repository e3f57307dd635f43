import { isObject, parseJson } from './github-errors.ts'
import type { HttpResponse } from './http-client.ts'

const MAX_ERROR_BYTES = 64 * 1024
/** GitHub's own advice, docs "Best practices for using the REST API": at least a minute, then exponentially longer. */
const FIRST_PAUSE_MS = 60_000
const MAX_BACKOFF_MS = 15 * 60_000
/** Whoever says more than this is not believed beyond it. */
const MAX_PAUSE_MS = 24 * 60 * 60_000

export interface RateLimit {
  scope: 'primary' | 'secondary'
  pauseMs: number
}

/**
 * Whether an answer says "too many requests", and how long to stay away: docs "Rate limits for the REST API" and "… for
 * the GraphQL API". 429 always does; 403 when it says when to come back, when nothing remains, or when it speaks of rate
 * limits; GraphQL's 200 when its errors do. `consecutiveRateLimits` are the answers of the kind before this one, in a row.
 */
export function rateLimitOf(
  { status, headers, body }: HttpResponse,
  consecutiveRateLimits: number,
): RateLimit | null {
  if (status === 200 ? !isGraphqlRateLimit(body) : status !== 403 && status !== 429) return null
  const isSpent = headers['x-ratelimit-remaining'] === '0'
  const retryAfterMs = parseRetryAfterMs(headers)
  const isLimit =
    status === 200 ||
    status === 429 ||
    isSpent ||
    retryAfterMs !== null ||
    mentionsRateLimit(body.toString('utf8', 0, 4_096))
  if (!isLimit) return null
  const scope = isSpent && retryAfterMs === null ? 'primary' : 'secondary'
  const told = retryAfterMs ?? (isSpent ? resetDelayMs(headers) : null)
  const untold = Math.min(FIRST_PAUSE_MS * 2 ** Math.min(consecutiveRateLimits, 10), MAX_BACKOFF_MS)
  return { scope, pauseMs: Math.min(told ?? untold, MAX_PAUSE_MS) }
}

/** Seconds, or a date (RFC 9110, 10.2.3). At least one second, lest we come back at once for ever. */
function parseRetryAfterMs(headers: HttpResponse['headers']): number | null {
  const value = headers['retry-after']
  if (value === undefined) return null
  if (/^\d+$/.test(value)) return Math.max(1, Number(value)) * 1_000
  const at = Date.parse(value)
  return Number.isNaN(at) ? null : Math.max(1_000, at - serverTime(headers))
}

/** By GitHub's clock, not ours; a second later, since the reset is in whole seconds. */
function resetDelayMs(headers: HttpResponse['headers']): number | null {
  const reset = Number(headers['x-ratelimit-reset'] ?? Number.NaN)
  return Number.isFinite(reset) ? Math.max(0, reset * 1_000 - serverTime(headers)) + 1_000 : null
}

/** GitHub's clock, in milliseconds, as its answer says; ours where it does not. */
export function serverTime(headers: HttpResponse['headers']): number {
  const told = Date.parse(headers.date ?? '')
  return Number.isNaN(told) ? Date.now() : told
}

/** `{ "errors": [{ "type": "RATE_LIMITED" }] }`; of the secondary limit GitHub tells only by the message. */
function isGraphqlRateLimit(body: Buffer): boolean {
  if (!body.subarray(0, MAX_ERROR_BYTES).includes('"errors"')) return false
  const json = body.length <= MAX_ERROR_BYTES ? parseJson(body) : undefined
  const errors = isObject(json) && Array.isArray(json.errors) ? json.errors : []
  return errors.some(
    (each) => isObject(each) && (each.type === 'RATE_LIMITED' || mentionsRateLimit(String(each.message))),
  )
}

function mentionsRateLimit(text: string): boolean {
  return /rate[ -]limit|abuse detection/i.test(text)
}
