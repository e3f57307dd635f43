import { createPrivateKey } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { z } from 'zod'
import {
  combine,
  integer,
  isLoopbackHost,
  oneOf,
  parseAs,
  rejectSettings,
  rejectValue,
  text,
} from './env-values.ts'

/** Where repositories go. */
export interface ForgeSettings {
  readonly forge: 'local' | 'github'
  /** Set where `forge` is `github`. */
  readonly github: GitHubSettings | undefined
}

/** How GitHub is reached, and with which credential. */
export interface GitHubSettings {
  /** Of the REST API, without a trailing slash. */
  readonly apiUrl: string
  readonly credential: GitHubCredential
  /** Milliseconds between two writes. */
  readonly writeSpacingMs: number
  /** Where organizations are created on Enterprise Cloud. */
  readonly enterprise: { readonly slug: string; readonly billingEmail: string } | undefined
  readonly proxies: {
    readonly httpProxy: string | undefined
    readonly httpsProxy: string | undefined
    readonly noProxy: string | undefined
  }
}

type GitHubCredential =
  | { readonly kind: 'token'; readonly token: string }
  | { readonly kind: 'app'; readonly appId: string; readonly privateKey: string }

const MIN_PUBLIC_WRITE_SPACING_MS = 1_000
const KEY_FILE_EXAMPLE = 'GITHUB_APP_PRIVATE_KEY_FILE=/etc/shipcast/app.pem'
const ENTERPRISE_EXAMPLE =
  'for example GITHUB_ENTERPRISE=acme-inc with GITHUB_BILLING_EMAIL=billing@acme.example'

/** The address of the REST API. Credentials are sent there: not in the clear, except on this machine. */
export const githubApiUrl = text.transform((value = 'https://api.github.com', context) => {
  const example =
    'https://api.github.com, or GITHUB_API_URL=https://github.example.com/api/v3 for Enterprise Server'
  const url = URL.parse(value)
  if (!url || !/^https?:$/.test(url.protocol) || url.search || url.hash || url.username || url.password) {
    const requirement = 'must be the https:// address of GitHub\'s REST API, without a user, "?" or "#"'
    return rejectValue(context, { requirement, example, isSecret: true })
  }
  if (/^(www\.)?github\.com$/.test(url.hostname)) {
    const requirement = "must be the address of GitHub's API, not of its website"
    return rejectValue(context, { requirement, example })
  }
  if (url.protocol === 'http:' && !isLoopbackHost(url.hostname)) {
    const requirement = 'must begin with https://, since the credential is sent there'
    return rejectValue(context, { requirement, example })
  }
  return url.href.replace(/\/+$/, '')
})

/** A proxy's address. Never repeated in a message: it may contain a password. */
const proxyUrl = text.transform((value, context) => {
  if (value === undefined || /^https?:$/.test(URL.parse(value)?.protocol ?? '')) return value
  return rejectValue(context, {
    requirement: 'must be the http:// or https:// address of a proxy',
    example: 'http://proxy.example.com:3128',
    isSecret: true,
  })
})

// Both spellings of the proxy variables are in use.
const proxySchema = z
  .object({
    HTTP_PROXY: proxyUrl,
    HTTPS_PROXY: proxyUrl,
    NO_PROXY: text,
    http_proxy: proxyUrl,
    https_proxy: proxyUrl,
    no_proxy: text,
  })
  .transform((env) => ({
    httpProxy: env.HTTP_PROXY ?? env.http_proxy,
    httpsProxy: env.HTTPS_PROXY ?? env.https_proxy,
    noProxy: env.NO_PROXY ?? env.no_proxy,
  }))

/** No message repeats a value: all of them are secret, or easily confused with one that is. */
const credentialSchema = z
  .object({ GITHUB_TOKEN: text, GITHUB_APP_ID: text, GITHUB_APP_PRIVATE_KEY_FILE: text })
  .transform((env, context): GitHubCredential => {
    const { GITHUB_TOKEN: token, GITHUB_APP_ID: appId, GITHUB_APP_PRIVATE_KEY_FILE: keyFile } = env
    if (token !== undefined && (appId !== undefined || keyFile !== undefined)) {
      return rejectSettings(
        context,
        'GITHUB_TOKEN and GITHUB_APP_ID with GITHUB_APP_PRIVATE_KEY_FILE are alternatives. Set one, and leave out the other.',
      )
    }
    if (token !== undefined) {
      if (/^[!-~]{8,1000}$/.test(token)) return { kind: 'token', token }
      return rejectSettings(
        context,
        'GITHUB_TOKEN must be a personal access token, for example GITHUB_TOKEN=github_pat_11ABCDEFG…, without spaces or quotation marks around it.',
      )
    }
    if (appId === undefined && keyFile === undefined) {
      return rejectSettings(
        context,
        `FORGE=github requires a credential: GITHUB_TOKEN=github_pat_11ABCDEFG…, or GITHUB_APP_ID=123456 with ${KEY_FILE_EXAMPLE}. Set FORGE=local to run without GitHub.`,
      )
    }
    if (keyFile === undefined) {
      return rejectSettings(
        context,
        `GITHUB_APP_ID requires GITHUB_APP_PRIVATE_KEY_FILE, the key that you download from the App's settings, for example ${KEY_FILE_EXAMPLE}.`,
      )
    }
    if (appId === undefined || !/^[A-Za-z0-9.]{1,100}$/.test(appId)) {
      return rejectSettings(
        context,
        'GITHUB_APP_ID must be the App ID or client ID of the GitHub App that GITHUB_APP_PRIVATE_KEY_FILE belongs to, for example GITHUB_APP_ID=123456.',
      )
    }
    try {
      return { kind: 'app', appId, privateKey: readPrivateKey(keyFile) }
    } catch (error) {
      return rejectSettings(
        context,
        `GITHUB_APP_PRIVATE_KEY_FILE ${(error as Error).message}. It must be the file that you download from the App's settings, for example ${KEY_FILE_EXAMPLE}, readable by the user that runs Shipcast.`,
      )
    }
  })

const apiSchema = z.object({
  GITHUB_API_URL: githubApiUrl,
  GITHUB_WRITE_SPACING_MS: integer({ defaultValue: MIN_PUBLIC_WRITE_SPACING_MS, min: 0, max: 60_000 }),
  GITHUB_ENTERPRISE: text,
  GITHUB_BILLING_EMAIL: text,
})

const githubSchema = combine({
  credential: credentialSchema,
  proxies: proxySchema,
  api: apiSchema,
}).transform(({ credential, proxies, api }, context): GitHubSettings => {
  const { GITHUB_API_URL: apiUrl, GITHUB_WRITE_SPACING_MS: writeSpacingMs } = api
  const isServer = !/^api\.(github|[^.]+\.ghe)\.com$/.test(new URL(apiUrl).hostname)
  if (!isServer && writeSpacingMs < MIN_PUBLIC_WRITE_SPACING_MS) {
    rejectSettings(
      context,
      `GITHUB_WRITE_SPACING_MS must be ${MIN_PUBLIC_WRITE_SPACING_MS} or more for ${apiUrl}, as GitHub requests; for example GITHUB_WRITE_SPACING_MS=${MIN_PUBLIC_WRITE_SPACING_MS}. Only Enterprise Server allows less. It is "${writeSpacingMs}".`,
    )
  }
  const { GITHUB_ENTERPRISE: slug, GITHUB_BILLING_EMAIL: billingEmail } = api
  const settings = { apiUrl, credential, writeSpacingMs, proxies }
  if (slug === undefined && billingEmail === undefined) return { ...settings, enterprise: undefined }
  if (isServer) {
    return rejectSettings(
      context,
      'GITHUB_ENTERPRISE and GITHUB_BILLING_EMAIL apply to Enterprise Cloud only. Leave them out: Enterprise Server creates organizations without them.',
    )
  }
  if (credential.kind === 'app') {
    return rejectSettings(
      context,
      'GITHUB_ENTERPRISE requires GITHUB_TOKEN, a classic token of an enterprise owner: a GitHub App cannot create organizations. Leave GITHUB_ENTERPRISE out.',
    )
  }
  if (slug === undefined || !/^[A-Za-z0-9-]{1,100}$/.test(slug)) {
    return rejectSettings(
      context,
      `GITHUB_ENTERPRISE must be the name in github.com/enterprises/NAME; ${ENTERPRISE_EXAMPLE}.`,
    )
  }
  if (billingEmail === undefined || !/^[^@\s]+@[^@\s]+$/.test(billingEmail)) {
    return rejectSettings(
      context,
      `GITHUB_ENTERPRISE requires GITHUB_BILLING_EMAIL, the billing address of new organizations; ${ENTERPRISE_EXAMPLE}.`,
    )
  }
  return { ...settings, enterprise: { slug, billingEmail } }
})

/** The settings of GitHub are read only where it is the forge. */
export const forgeSchema = z
  .looseObject({ FORGE: oneOf(['local', 'github'], 'local'), GITHUB_TOKEN: text, GITHUB_APP_ID: text })
  .transform((env, context): ForgeSettings => {
    const forge = env.FORGE ?? (env.GITHUB_TOKEN || env.GITHUB_APP_ID ? 'github' : 'local')
    return { forge, github: forge === 'github' ? parseAs(githubSchema, env, context) : undefined }
  })

/** Its error messages complete "GITHUB_APP_PRIVATE_KEY_FILE …" and never repeat the file's contents. */
function readPrivateKey(path: string): string {
  let pem: string
  try {
    pem = readFileSync(path, 'utf8')
  } catch (error) {
    const { code = 'unknown error' } = error as NodeJS.ErrnoException
    throw new Error(`cannot be read (${code})`)
  }
  if (!isRsaPrivateKey(pem)) throw new Error('contains no RSA private key')
  return pem
}

function isRsaPrivateKey(pem: string): boolean {
  try {
    return createPrivateKey(pem).asymmetricKeyType === 'rsa'
  } catch {
    return false
  }
}
