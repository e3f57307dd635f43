import { AppCredential, type Credential, type CredentialSettings, TokenCredential } from './credential.ts'
import type { CredentialPauses } from './credential-pauses.ts'
import { CredentialQueue } from './credential-queue.ts'
import { type Addresses, addressesOf } from './endpoints.ts'
import { GitRemotes } from './git-remote.ts'
import { GitHubApi } from './github-api.ts'
import { type ProxySettings, Transport } from './transport.ts'

export interface ConnectionOptions {
  /** `https://api.github.com`, `https://HOST/api/v3`. */
  apiUrl: string
  credential: CredentialSettings
  /** Where pauses and turns are kept, for all nodes that use this credential. */
  pauses: CredentialPauses
  /** Milliseconds between two writes of the credential. */
  writeSpacingMs: number
  proxies?: ProxySettings | undefined
  /** Milliseconds for one REST call, or for git without progress. */
  callTimeoutMs?: number
}

/** The ways to one GitHub with one credential, which share its queue. */
export interface Connection {
  addresses: Addresses
  api: GitHubApi
  remotes: GitRemotes
  close(): Promise<void>
}

const CALL_TIMEOUT_MS = 60_000
/** GitHub's undocumented limit is about 500 an hour: some of it is left to others who use the credential. */
const MOST_CREATIONS_AN_HOUR = 400

export function connect(options: ConnectionOptions): Connection {
  const addresses = addressesOf(options.apiUrl)
  const transport = new Transport(options.proxies)
  const credential: Credential =
    options.credential.kind === 'token'
      ? new TokenCredential(options.credential.token, addresses.api)
      : new AppCredential(options.credential, addresses.api, {
          find: (owner, signer, signal) => api.findInstallation(owner, signer, signal),
          createToken: (installation, signer, signal) =>
            api.createInstallationToken(installation, signer, signal),
        })
  const queue = new CredentialQueue({
    credentialId: credential.id,
    pauses: options.pauses,
    writeSpacingMs: options.writeSpacingMs,
    mostCreationsAnHour: addresses.isEnterpriseServer ? null : MOST_CREATIONS_AN_HOUR,
  })
  const { callTimeoutMs = CALL_TIMEOUT_MS } = options
  const shared = { addresses, transport, queue, credential, callTimeoutMs }
  const api = new GitHubApi(shared)
  return { addresses, api, remotes: new GitRemotes(shared), close: () => transport.close() }
}
