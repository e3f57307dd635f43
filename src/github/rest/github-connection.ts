import { AppCredential, type Credential, type CredentialSettings, TokenCredential } from './credential.ts'
import { type Endpoints, endpointsOf } from './endpoints.ts'
import { GitRemotes } from './git-remote.ts'
import { GitHubApi } from './github-api.ts'
import { GitHubThrottle } from './github-throttle.ts'
import { HttpClient, type ProxySettings } from './http-client.ts'
import type { RateLimitStore } from './rate-limit-store.ts'

export interface GitHubConnectionOptions {
  /** `https://api.github.com`, `https://HOST/api/v3`. */
  apiUrl: string
  credential: CredentialSettings
  /** Holds rate-limit pauses and write slots for all nodes that use this credential. */
  rateLimitStore: RateLimitStore
  /** Milliseconds between two writes with the credential. */
  writeSpacingMs: number
  proxies?: ProxySettings | undefined
  /** Milliseconds for one API call, or for git without progress. */
  callTimeoutMs?: number
}

/** The API and the git remotes of one GitHub instance, with one credential and one throttle. */
export interface GitHubConnection {
  endpoints: Endpoints
  api: GitHubApi
  remotes: GitRemotes
  close(): Promise<void>
}

const CALL_TIMEOUT_MS = 60_000
/** GitHub's undocumented limit is about 500 per hour; this leaves some for other users of the credential. */
const MAX_CREATIONS_PER_HOUR = 400

export function connectToGitHub(options: GitHubConnectionOptions): GitHubConnection {
  const endpoints = endpointsOf(options.apiUrl)
  const httpClient = new HttpClient(options.proxies)
  const credential: Credential =
    options.credential.kind === 'token'
      ? new TokenCredential(options.credential.token, endpoints.api)
      : new AppCredential(options.credential, endpoints.api, {
          find: (owner, signer, signal) => api.findInstallation(owner, signer, signal),
          createToken: (installation, signer, signal) =>
            api.createInstallationToken(installation, signer, signal),
        })
  const throttle = new GitHubThrottle({
    credentialId: credential.id,
    rateLimitStore: options.rateLimitStore,
    writeSpacingMs: options.writeSpacingMs,
    maxCreationsPerHour: endpoints.isEnterpriseServer ? null : MAX_CREATIONS_PER_HOUR,
  })
  const { callTimeoutMs = CALL_TIMEOUT_MS } = options
  const shared = { endpoints, httpClient, throttle, credential, callTimeoutMs }
  const api = new GitHubApi(shared)
  return { endpoints, api, remotes: new GitRemotes(shared), close: () => httpClient.close() }
}
