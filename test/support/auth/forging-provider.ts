import { createHash, createHmac, generateKeyPairSync, type KeyObject, randomBytes, sign } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type IncomingMessage, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'

export interface Forgery {
  /** The algorithm in the ID token's header and of its signature. */
  alg?: 'RS256' | 'HS256' | 'none'
  /** Overrides the correct claims. */
  claims?: Record<string, unknown>
  /** Signed by another key, under the provider's own key id. */
  isSignedByOtherKey?: boolean
  /** The response of the userinfo endpoint. */
  userInfo?: Record<string, unknown>
}

const NOT_GRANTED = { status: 400, headers: { 'content-type': 'application/json' } }
const UNAUTHORIZED = { status: 401, headers: { 'www-authenticate': 'Bearer error="invalid_token"' } }

/**
 * An OpenID provider that sends forgeries. Otherwise strict: a code is valid once, and requires its verifier.
 */
export class ForgingProvider {
  forgery: Forgery = {}
  readonly clientSecret = 'a secret of the tests'
  /** Access and ID tokens. */
  readonly issuedTokens: string[] = []
  private readonly keys = generateKeyPairSync('rsa', { modulusLength: 2048 })
  private readonly otherKeys = generateKeyPairSync('rsa', { modulusLength: 2048 })
  private readonly codes = new Map<string, { nonce: string; challenge: string; redirectUrl: string }>()

  private constructor(private readonly server: Server) {}

  static async start(): Promise<ForgingProvider> {
    const server = createServer()
    const provider = new ForgingProvider(server)
    server.on('request', async (request: IncomingMessage, response) => {
      const body = await provider.respond(request)
      const refusal = request.url === '/userinfo' ? UNAUTHORIZED : NOT_GRANTED
      if (body) response.writeHead(200, { 'content-type': 'application/json' })
      else response.writeHead(refusal.status, refusal.headers)
      response.end(JSON.stringify(body ?? { error: 'invalid_grant' }))
    })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    return provider
  }

  get issuer(): string {
    return `http://127.0.0.1:${(this.server.address() as AddressInfo).port}`
  }

  async close(): Promise<void> {
    this.server.closeAllConnections()
    this.server.close()
    await once(this.server, 'close')
  }

  /** The URL that the provider redirects a browser to. */
  authorize(url: URL): URL {
    const parameter = (name: string) => url.searchParams.get(name) ?? ''
    const code = randomBytes(16).toString('hex')
    const redirectUrl = parameter('redirect_uri')
    this.codes.set(code, { nonce: parameter('nonce'), challenge: parameter('code_challenge'), redirectUrl })
    const back = new URL(redirectUrl)
    back.search = new URLSearchParams({ code, state: parameter('state') }).toString()
    return back
  }

  private async respond(request: IncomingMessage): Promise<unknown> {
    if (request.url === '/.well-known/openid-configuration') return this.metadata()
    if (request.url === '/jwks') {
      return {
        keys: [{ ...this.keys.publicKey.export({ format: 'jwk' }), kid: 'own', use: 'sig', alg: 'RS256' }],
      }
    }
    if (request.url === '/userinfo') return this.forgery.userInfo
    const body = new URLSearchParams(Buffer.concat(await request.toArray()).toString())
    const code = body.get('code') ?? ''
    const issued = this.codes.get(code)
    this.codes.delete(code)
    const challenge = createHash('sha256')
      .update(body.get('code_verifier') ?? '')
      .digest('base64url')
    const isValid = issued?.challenge === challenge && issued.redirectUrl === body.get('redirect_uri')
    if (!issued || !isValid || body.get('client_secret') !== this.clientSecret) return undefined
    const [accessToken, idToken] = [randomBytes(16).toString('hex'), this.idToken(issued.nonce)]
    this.issuedTokens.push(accessToken, idToken)
    return { access_token: accessToken, token_type: 'Bearer', id_token: idToken }
  }

  private metadata() {
    const { issuer } = this
    return {
      issuer,
      authorization_endpoint: `${issuer}/authorize`,
      token_endpoint: `${issuer}/token`,
      userinfo_endpoint: `${issuer}/userinfo`,
      jwks_uri: `${issuer}/jwks`,
      response_types_supported: ['code'],
      subject_types_supported: ['public'],
      // Also offers insecure algorithms, which clients must not accept.
      id_token_signing_alg_values_supported: ['RS256', 'HS256', 'none'],
    }
  }

  private idToken(nonce: string): string {
    const { alg = 'RS256', claims, isSignedByOtherKey } = this.forgery
    const now = Math.floor(Date.now() / 1000)
    const correct = { iss: this.issuer, aud: 'shipcast', sub: '1', iat: now, exp: now + 60, nonce }
    const header = { alg, kid: 'own' }
    const signed = `${encodePart(header)}.${encodePart({ ...correct, ...claims })}`
    const key = (isSignedByOtherKey ? this.otherKeys : this.keys).privateKey
    return `${signed}.${this.signature(alg, signed, key)}`
  }

  private signature(alg: string, signed: string, key: KeyObject): string {
    if (alg === 'none') return ''
    // Signed with the client secret, which both sides know: it proves nothing.
    if (alg === 'HS256') return createHmac('sha256', this.clientSecret).update(signed).digest('base64url')
    return sign('sha256', Buffer.from(signed), key).toString('base64url')
  }
}

function encodePart(part: object): string {
  return Buffer.from(JSON.stringify(part)).toString('base64url')
}
