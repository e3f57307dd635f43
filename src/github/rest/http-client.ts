import { Agent, type Dispatcher, EnvHttpProxyAgent, request as undiciRequest } from 'undici'
import { ForgeError } from '../forge-error.ts'
import { isExemptFromProxy } from './no-proxy.ts'

export interface ProxySettings {
  httpProxy?: string | undefined
  httpsProxy?: string | undefined
  noProxy?: string | undefined
}

export interface HttpRequest {
  method: 'GET' | 'POST' | 'PATCH' | 'DELETE'
  url: string
  headers: Record<string, string>
  /** Bytes are sent with a length, an iterable in chunks. The iterable is read once. */
  body?: string | Uint8Array | AsyncIterable<Uint8Array> | undefined
  signal: AbortSignal
  /** Milliseconds for the whole exchange; or, if it resets on progress, between two parts of either body. */
  timeoutMs: number
  timeoutResetsOnProgress?: boolean
  /** A longer response is an error. */
  maxResponseBytes: number
}

export interface HttpResponse {
  status: number
  /** Lower-case names. */
  headers: Readonly<Record<string, string>>
  body: Buffer
  /** The final URL, after redirects. */
  url: string
}

/** No response, or an incomplete one: the server may have applied the request anyway. */
export class NetworkError extends Error {}

const MAX_REDIRECTS = 5
const CONNECT_TIMEOUT_MS = 10_000
const IDLE_CONNECTION_TIMEOUT_MS = 10_000
const MAX_CONNECTIONS = 16
/**
 * A response that resets its timeout by progress may take this many timeouts in total,
 * however steadily it arrives.
 */
const MAX_RESPONSE_TIMEOUTS = 10

/**
 * HTTP as GitHub's API requires it, without retries or interpretation of the status.
 *
 * Follows redirects after a rename (301, 302, 307, 308; GitHub's "Follow redirects") with the same method,
 * but only to the same origin, so that no other server receives the credential. Proxies come from the
 * settings, additional certificate authorities from Node's own NODE_EXTRA_CA_CERTS, which the error for an
 * unknown authority names.
 */
export class HttpClient {
  private readonly direct: Dispatcher
  private readonly proxied: Dispatcher | undefined
  private readonly noProxy: string

  constructor({ httpProxy, httpsProxy, noProxy = '' }: ProxySettings = {}) {
    const options: Agent.Options = {
      keepAliveTimeout: IDLE_CONNECTION_TIMEOUT_MS,
      connections: MAX_CONNECTIONS,
      // Each request has its own timeout.
      headersTimeout: 0,
      bodyTimeout: 0,
      connect: { timeout: CONNECT_TIMEOUT_MS },
    }
    this.noProxy = noProxy
    this.direct = new Agent(options)
    if (httpProxy || httpsProxy) {
      this.proxied = new EnvHttpProxyAgent({
        ...options,
        // undici's own NO_PROXY does not support networks; see `dispatcherFor`.
        noProxy: '',
        httpProxy: httpProxy ?? '',
        httpsProxy: httpsProxy ?? '',
      })
    }
  }

  /**
   * Rejects with the signal's reason, with `NetworkError`, with `UNTRUSTED` before anything was sent, or with
   * the error thrown by the body's iterable.
   */
  async send(request: HttpRequest): Promise<HttpResponse> {
    let { url } = request
    for (let redirects = 0; ; redirects++) {
      const response = await this.sendOnce({ ...request, url })
      const location = redirectLocation(response, request)
      if (location === undefined) return response
      if (redirects === MAX_REDIRECTS) {
        throw new ForgeError(
          'UNEXPECTED',
          `GitHub redirects ${pathOf(url)} more than ${MAX_REDIRECTS} times.`,
        )
      }
      const target = URL.parse(location, url)
      if (target === null || target.origin !== new URL(url).origin) {
        throw new ForgeError(
          'UNEXPECTED',
          `GitHub redirects ${pathOf(url)} to another server, which must not receive the credential. Set GITHUB_API_URL to the address of the right server.`,
        )
      }
      url = target.href
    }
  }

  async close(): Promise<void> {
    await Promise.all([this.direct.destroy(), this.proxied?.destroy()])
  }

  private async sendOnce(request: HttpRequest): Promise<HttpResponse> {
    const { method, url, headers, signal, timeoutMs, timeoutResetsOnProgress, maxResponseBytes } = request
    signal.throwIfAborted()
    const timeout = new ResettableTimeout(timeoutMs)
    // Kept because undici wraps it, and callers need the original: a failing database, for example.
    let bodyFailure: { error: unknown } | undefined
    async function* trackProgress(parts: AsyncIterable<Uint8Array>) {
      try {
        for await (const part of parts) {
          if (timeoutResetsOnProgress) timeout.reset()
          yield part
        }
      } catch (error) {
        bodyFailure = { error }
        throw error
      }
    }
    const body = isRepeatable(request.body) ? request.body : trackProgress(request.body)
    try {
      const response = await undiciRequest(url, {
        dispatcher: this.dispatcherFor(url),
        method,
        headers,
        // undici accepts any async iterable of bytes, but its types do not.
        body: (body ?? null) as Dispatcher.DispatchOptions['body'] & null,
        signal: AbortSignal.any([signal, timeout.signal]),
      })
      const parts: Buffer[] = []
      let length = 0
      const deadlineMs = performance.now() + MAX_RESPONSE_TIMEOUTS * timeoutMs
      for await (const part of response.body) {
        if (timeoutResetsOnProgress && performance.now() < deadlineMs) timeout.reset()
        length += part.length
        if (length > maxResponseBytes) {
          throw new NetworkError(`the response is longer than ${maxResponseBytes} bytes`)
        }
        parts.push(part)
      }
      return {
        status: response.statusCode,
        headers: flattenHeaders(response.headers),
        body: Buffer.concat(parts),
        url,
      }
    } catch (error) {
      signal.throwIfAborted()
      if (bodyFailure) throw bodyFailure.error
      if (error instanceof NetworkError) throw error
      const certificateError = certificateErrorCode(error)
      if (certificateError !== undefined) throw untrustedError(certificateError, url)
      // Without the cause, which may contain what was sent.
      throw new NetworkError(
        timeout.signal.aborted ? `no response within ${timeoutMs / 1_000} s` : describeError(error),
      )
    } finally {
      timeout.clear()
    }
  }

  private dispatcherFor(url: string): Dispatcher {
    return this.proxied && !isExemptFromProxy(this.noProxy, url) ? this.proxied : this.direct
  }
}

class ResettableTimeout {
  private readonly controller = new AbortController()
  private readonly timer: NodeJS.Timeout

  constructor(ms: number) {
    this.timer = setTimeout(() => this.controller.abort(), ms)
  }

  get signal(): AbortSignal {
    return this.controller.signal
  }

  reset(): void {
    this.timer.refresh()
  }

  clear(): void {
    clearTimeout(this.timer)
  }
}

function redirectLocation({ status, headers }: HttpResponse, { body }: HttpRequest): string | undefined {
  if (status !== 301 && status !== 302 && status !== 307 && status !== 308) return undefined
  // An iterable has been consumed by now; its sender determines the final URL beforehand.
  return isRepeatable(body) ? headers.location : undefined
}

function isRepeatable(body: HttpRequest['body']): body is string | Uint8Array | undefined {
  return body === undefined || typeof body === 'string' || body instanceof Uint8Array
}

function flattenHeaders(headers: Record<string, string | string[] | undefined>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(headers).flatMap(([name, value]) =>
      value === undefined ? [] : [[name.toLowerCase(), Array.isArray(value) ? value.join(', ') : value]],
    ),
  )
}

/** OpenSSL's codes (node:tls, "X509 certificate error codes") for which NODE_EXTRA_CA_CERTS is the remedy. */
const UNKNOWN_AUTHORITY_CODES = new Set([
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
  'UNABLE_TO_GET_ISSUER_CERT',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
  'SELF_SIGNED_CERT_IN_CHAIN',
  'DEPTH_ZERO_SELF_SIGNED_CERT',
])
/** The other codes: validity period, name, purpose. */
const INVALID_CERTIFICATE =
  /^(CERT_(?!AUTHORITY)\w+|ERR_TLS_CERT_ALTNAME_INVALID|HOSTNAME_MISMATCH|INVALID_(CA|PURPOSE)|PATH_LENGTH_EXCEEDED)$/

/**
 * The code with which Node rejects the server's certificate; undefined for other
 * errors, which may be temporary.
 */
function certificateErrorCode(error: unknown): string | undefined {
  for (
    let each = error;
    typeof each === 'object' && each !== null;
    each = (each as { cause?: unknown }).cause
  ) {
    const { code } = each as { code?: unknown }
    if (typeof code !== 'string') continue
    if (UNKNOWN_AUTHORITY_CODES.has(code) || INVALID_CERTIFICATE.test(code)) return code
  }
  return undefined
}

function untrustedError(code: string, url: string): ForgeError {
  const { host } = new URL(url)
  return new ForgeError(
    'UNTRUSTED',
    UNKNOWN_AUTHORITY_CODES.has(code)
      ? `The certificate of ${host}, or of a proxy in between, is from an authority unknown to this machine (${code}), so nothing was sent. Set NODE_EXTRA_CA_CERTS to a PEM file with that authority's certificate, restart Shipcast, then retry.`
      : `The certificate of ${host}, or of a proxy in between, is invalid (${code}: expired, or for another name), so nothing was sent. Renew the certificate, or correct this machine's clock or GITHUB_API_URL; then retry.`,
  )
}

function describeError(error: unknown): string {
  const { code, message } = error as { code?: unknown; message?: unknown }
  const text = typeof message === 'string' && message !== '' ? message : 'the connection was lost'
  return typeof code === 'string' && !text.includes(code) ? `${text} (${code})` : text
}

function pathOf(url: string): string {
  return new URL(url).pathname
}
