import { Agent, type Dispatcher, EnvHttpProxyAgent, request } from 'undici'
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
  /** Bytes are sent with a length, a generator in chunks. It is read once. */
  body?: string | Uint8Array | AsyncIterable<Uint8Array> | undefined
  /** Aborted when nobody wants the answer any more. */
  signal: AbortSignal
  /** Milliseconds for all of it; or, where progress counts, since a part of the body was taken or of the answer came. */
  timeoutMs: number
  timeoutResetsOnProgress?: boolean
  /** Bytes of the answer that are kept; an answer beyond that is an error. */
  maxResponseBytes: number
}

export interface HttpResponse {
  status: number
  /** Lower-case names. */
  headers: Readonly<Record<string, string>>
  body: Buffer
  /** Where it came from in the end, after redirects. */
  url: string
}

/** No answer, or not all of it: whether the other side did what was asked is unknown, except for `refused`. */
export class NetworkError extends Error {
  override readonly name = 'NetworkError'
}

const MAX_REDIRECTS = 5
const IDLE_CONNECTION_TIMEOUT_MS = 10_000
const MAX_CONNECTIONS = 16
/** An answer whose progress counts may take so many times its timeout in all, however steadily it comes. */
const MAX_RESPONSE_TIMEOUTS = 10

/**
 * HTTP as GitHub's API wants it, and nothing more: no retries, and nothing is decided about a status.
 *
 * Redirects are followed as after a rename (301, 302, 307, 308; GitHub's "Follow redirects"), with the same method,
 * and only on the same origin: the credential goes nowhere else. Proxies come from the settings; a CA of one's own
 * from NODE_EXTRA_CA_CERTS, which is Node's, and whose absence is told by name.
 */
export class HttpClient {
  private readonly direct: Dispatcher
  private readonly proxied: Dispatcher | undefined
  private readonly noProxy: string

  constructor(proxies: ProxySettings = {}) {
    const options: Agent.Options = {
      keepAliveTimeout: IDLE_CONNECTION_TIMEOUT_MS,
      connections: MAX_CONNECTIONS,
      // The signal of each request has its own clock.
      headersTimeout: 0,
      bodyTimeout: 0,
      connect: { timeout: 10_000 },
    }
    const { httpProxy, httpsProxy, noProxy } = proxies
    this.noProxy = noProxy ?? ''
    this.direct = new Agent(options)
    if (httpProxy || httpsProxy) {
      this.proxied = new EnvHttpProxyAgent({
        ...options,
        // Its own reading knows no networks; see `#dispatcherFor`.
        noProxy: '',
        httpProxy: httpProxy ?? '',
        httpsProxy: httpsProxy ?? '',
      })
    }
  }

  /**
   * Rejects with the signal's reason, with `NoAnswer`, with `UNTRUSTED` before anything was sent, or with what the
   * body's generator threw.
   */
  async send(wanted: HttpRequest): Promise<HttpResponse> {
    let { url } = wanted
    for (let hop = 0; ; hop++) {
      const answer = await this.sendOnce({ ...wanted, url })
      const location = redirectOf(answer, wanted)
      if (location === undefined) return answer
      if (hop === MAX_REDIRECTS) {
        throw new ForgeError('UNEXPECTED', `GitHub redirects in a circle at ${pathOf(url)}.`)
      }
      const next = URL.parse(location, url)
      if (next === null || next.origin !== new URL(url).origin) {
        throw new ForgeError(
          'UNEXPECTED',
          `GitHub redirects ${pathOf(url)} to another server, where the credential is not sent. Set GITHUB_API_URL to the address that is meant.`,
        )
      }
      url = next.href
    }
  }

  private dispatcherFor(url: string): Dispatcher {
    return this.proxied && !isExemptFromProxy(this.noProxy, url) ? this.proxied : this.direct
  }

  async close(): Promise<void> {
    await Promise.all([this.direct.destroy(), this.proxied?.destroy()])
  }

  private async sendOnce(wanted: HttpRequest): Promise<HttpResponse> {
    const { method, url, headers, signal, maxResponseBytes: mostBytes } = wanted
    signal.throwIfAborted()
    const clock = new IdleTimeout(wanted.timeoutMs)
    // Kept apart from what undici makes of it: the reader of a broken database should hear of that.
    let bodyFault: { error: unknown } | undefined
    async function* watched(parts: AsyncIterable<Uint8Array>) {
      try {
        for await (const part of parts) {
          if (wanted.timeoutResetsOnProgress) clock.reset()
          yield part
        }
      } catch (error) {
        bodyFault = { error }
        throw error
      }
    }
    const body =
      wanted.body === undefined || typeof wanted.body === 'string' || wanted.body instanceof Uint8Array
        ? wanted.body
        : watched(wanted.body)
    try {
      const answer = await request(url, {
        dispatcher: this.dispatcherFor(url),
        method,
        headers,
        // undici takes any async iterable of bytes, which its types do not say.
        body: (body ?? null) as Dispatcher.DispatchOptions['body'] & null,
        signal: AbortSignal.any([signal, clock.signal]),
      })
      const parts: Buffer[] = []
      let length = 0
      const deadline = performance.now() + MAX_RESPONSE_TIMEOUTS * wanted.timeoutMs
      for await (const part of answer.body) {
        if (wanted.timeoutResetsOnProgress && performance.now() < deadline) clock.reset()
        length += part.length
        if (length > mostBytes) throw new NetworkError(`the answer is longer than ${mostBytes} bytes`)
        parts.push(part)
      }
      return {
        status: answer.statusCode,
        headers: flattenHeaders(answer.headers),
        body: Buffer.concat(parts),
        url,
      }
    } catch (error) {
      signal.throwIfAborted()
      if (bodyFault) throw bodyFault.error
      if (error instanceof NetworkError) throw error
      const distrust = certificateErrorCode(error)
      if (distrust !== undefined) throw untrustedError(distrust, url)
      // Without the error itself, whose causes may carry what was sent.
      throw new NetworkError(
        clock.signal.aborted ? `no answer within ${wanted.timeoutMs / 1000} s` : describeError(error),
      )
    } finally {
      clock.stop()
    }
  }
}

/** Aborts when it has not been reset for so long. */
class IdleTimeout {
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

  stop(): void {
    clearTimeout(this.timer)
  }
}

function redirectOf({ status, headers }: HttpResponse, { body }: HttpRequest): string | undefined {
  if (status !== 301 && status !== 302 && status !== 307 && status !== 308) return undefined
  // A generator has been read by now; the caller looks for the right address beforehand.
  const canRepeat = body === undefined || typeof body === 'string' || body instanceof Uint8Array
  return canRepeat ? headers.location : undefined
}

function flattenHeaders(headers: Record<string, string | string[] | undefined>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(headers).flatMap(([name, value]) =>
      value === undefined ? [] : [[name.toLowerCase(), Array.isArray(value) ? value.join(', ') : value]],
    ),
  )
}

/** Codes of OpenSSL's verification (node:tls, "X509 certificate error codes") that a CA of one's own mends. */
const UNKNOWN_AUTHORITY = new Set([
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
  'UNABLE_TO_GET_ISSUER_CERT',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
  'SELF_SIGNED_CERT_IN_CHAIN',
  'DEPTH_ZERO_SELF_SIGNED_CERT',
])
/** The others: its time, its name, its use. */
const BAD_CERTIFICATE =
  /^(CERT_(?!AUTHORITY)\w+|ERR_TLS_CERT_ALTNAME_INVALID|HOSTNAME_MISMATCH|INVALID_(CA|PURPOSE)|PATH_LENGTH_EXCEEDED)$/

/** The code by which Node does not trust who answers; time will not mend it. */
function certificateErrorCode(error: unknown): string | undefined {
  for (
    let each = error;
    typeof each === 'object' && each !== null;
    each = (each as { cause?: unknown }).cause
  ) {
    const { code } = each as { code?: unknown }
    if (typeof code === 'string' && (UNKNOWN_AUTHORITY.has(code) || BAD_CERTIFICATE.test(code))) return code
  }
  return undefined
}

function untrustedError(code: string, url: string): ForgeError {
  const { host } = new URL(url)
  return new ForgeError(
    'UNTRUSTED',
    UNKNOWN_AUTHORITY.has(code)
      ? `The certificate of ${host}, or of a proxy in between, is from an authority that this machine does not know (${code}), so nothing was sent. Set NODE_EXTRA_CA_CERTS to a PEM file with that authority's certificate, start Shipcast anew, then retry.`
      : `The certificate of ${host}, or of a proxy in between, is not good (${code}: expired, or for another name), so nothing was sent. Have it mended, and check this machine's clock and GITHUB_API_URL; then retry.`,
  )
}

function describeError(error: unknown): string {
  const { code, message } = error as { code?: unknown; message?: unknown }
  const text = typeof message === 'string' && message !== '' ? message : 'the connection broke'
  return typeof code === 'string' && !text.includes(code) ? `${text} (${code})` : text
}

function pathOf(url: string): string {
  return new URL(url).pathname
}
