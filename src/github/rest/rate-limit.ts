import { parseErrorBody } from './github-errors.ts'
import type { HttpResponse } from './http-client.ts'

/** A larger GraphQL response is data, not an error. */
const MAX_ERROR_BYTES = 64 * 1024
/**
 * GitHub's advice, docs "Best practices for using the REST API": at least a minute,
 * then exponentially longer.
 */
const FIRST_PAUSE_MS = 60_000
const MAX_BACKOFF_MS = 15 * 60_000
/** The maximum, whatever the header says. */
const MAX_PAUSE_MS = 24 * 60 * 60_000

/**
 * The pause in milliseconds that a rate-limit response requests; null for any other response. Sources: docs
 * "Rate limits for the REST API" and "… for the GraphQL API". 429 is always one; 403 if it says when to
 * retry, if nothing remains, or if its text mentions rate limits; GraphQL's 200 if its errors do.
 */
export function rateLimitPauseMs(response: HttpResponse, consecutiveRateLimits: number): number | null {
  const { status, headers } = response
  const isExhausted = headers['x-ratelimit-remaining'] === '0'
  const retryAfterMs = parseRetryAfterMs(headers)
  const isRateLimit =
    status === 429 ||
    (status === 403 &&
      (isExhausted ||
        retryAfterMs !== null ||
        mentionsRateLimit(response.body.toString('utf8', 0, 4_096)))) ||
    (status === 200 && isGraphqlRateLimit(response))
  if (!isRateLimit) return null
  const requestedMs = retryAfterMs ?? (isExhausted ? untilResetMs(headers) : null)
  const backoffMs = Math.min(FIRST_PAUSE_MS * 2 ** Math.min(consecutiveRateLimits, 10), MAX_BACKOFF_MS)
  return Math.min(requestedMs ?? backoffMs, MAX_PAUSE_MS)
}

/** Seconds, or a date (RFC 9110, 10.2.3). At least one second, to avoid an immediate retry loop. */
function parseRetryAfterMs(headers: HttpResponse['headers']): number | null {
  const value = headers['retry-after']
  if (value === undefined) return null
  if (/^\d+$/.test(value)) return Math.max(1, Number(value)) * 1_000
  const retryAtMs = Date.parse(value)
  return Number.isNaN(retryAtMs) ? null : Math.max(1_000, retryAtMs - serverTimeMs(headers))
}

/** By GitHub's clock, not ours; plus a second, because the reset is in whole seconds. */
function untilResetMs(headers: HttpResponse['headers']): number | null {
  const resetSeconds = Number(headers['x-ratelimit-reset'] ?? Number.NaN)
  return Number.isFinite(resetSeconds)
    ? Math.max(0, resetSeconds * 1_000 - serverTimeMs(headers)) + 1_000
    : null
}

/** GitHub's clock from the `date` header, or our own without one. */
export function serverTimeMs(headers: HttpResponse['headers']): number {
  const dateMs = Date.parse(headers.date ?? '')
  return Number.isNaN(dateMs) ? Date.now() : dateMs
}

/** `{ "errors": [{ "type": "RATE_LIMITED" }] }`; only the message reveals a secondary limit. */
function isGraphqlRateLimit({ body }: HttpResponse): boolean {
  if (body.length > MAX_ERROR_BYTES || !body.includes('"errors"')) return false
  return parseErrorBody(body).errors.some(
    ({ type, message }) => type === 'RATE_LIMITED' || mentionsRateLimit(message ?? ''),
  )
}

function mentionsRateLimit(text: string): boolean {
  return /rate[ -]limit|abuse detection/i.test(text)
}
