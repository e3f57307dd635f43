import { ForgeError } from '../forge-error.ts'
import type { PreparedContents } from '../git/commit-pack.ts'
import type { CallContext } from '../github-client.ts'
import { basicCredentials, type Credential } from './credential.ts'
import type { Endpoints } from './endpoints.ts'
import {
  type Advertisement,
  GitProtocolError,
  type PushReport,
  parseAdvertisement,
  parseReport,
  pushCommand,
  type RefUpdate,
} from './git-wire.ts'
import { settingsUrl, USER_AGENT } from './github-api.ts'
import {
  type CallDescription,
  type RefusedPush,
  refusalText,
  toForgeError,
  toRefusalError,
} from './github-errors.ts'
import type { GitHubThrottle } from './github-throttle.ts'
import { type HttpClient, type HttpResponse, NetworkError } from './http-client.ts'

export interface GitRemoteOptions {
  endpoints: Endpoints
  httpClient: HttpClient
  throttle: GitHubThrottle
  credential: Credential
  /** Milliseconds for a call without progress. */
  callTimeoutMs: number
}

/** One repository, as git finds it. */
export interface Remote {
  /** Whose token is used. */
  owner: string
  /** For people: `acme/site`. */
  fullName: string
  /** Without a slash at the end. */
  url: string
}

type Service = 'git-upload-pack' | 'git-receive-pack'

/** As git does, `http.postBuffer`: up to here with a length, above in chunks. */
const MAX_BUFFERED_BYTES = 1024 * 1024
const MAX_RESPONSE_BYTES = 4 * 1024 * 1024
/** docs "Repository limits": one push. */
const MAX_PUSH_BYTES = 2 * 1024 ** 3

/** The absence of a repository, which may be one that is not there yet. */
export class RemoteNotFoundError extends Error {
  override readonly name = 'RemoteNotFoundError'
}

/** Git's smart HTTP, as far as a new branch needs it: two requests a push, whatever the number of files. */
export class GitRemotes {
  private readonly options: GitRemoteOptions

  constructor(options: GitRemoteOptions) {
    this.options = options
  }

  /** What the repository has. Rejects with `RemoteMissing`, or with a GitHubError. */
  async fetchAdvertisement(
    remote: Remote,
    service: Service,
    signal: AbortSignal,
  ): Promise<Advertisement & { url: string }> {
    const path = `/info/refs?service=${service}`
    const answer = await this.send(remote, 'read', signal, {
      method: 'GET',
      url: `${remote.url}${path}`,
      headers: {},
    })
    if (answer.status !== 200) throw this.toError(answer, remote, 'read')
    try {
      // After a rename the rest goes where this was answered from.
      return { ...parseAdvertisement(answer.body, service), url: answer.url.slice(0, -path.length) }
    } catch (error) {
      throw this.toProtocolError(error, remote)
    }
  }

  /** Puts the commit on the ref, if that is at `from`. Resolves to what the server reports, good or bad. */
  async push(
    remote: Remote,
    update: RefUpdate,
    contents: PreparedContents,
    { capabilities }: Advertisement,
    { signal, onProgress }: CallContext,
  ): Promise<PushReport> {
    if (contents.packBytes > MAX_PUSH_BYTES) {
      throw new ForgeError(
        'TOO_LARGE',
        'The contents are larger than the 2 GB that GitHub takes in one push.',
      )
    }
    const command = pushCommand(update, capabilities, USER_AGENT)
    const total = contents.packBytes
    async function* body() {
      yield command
      let done = 0
      for await (const part of contents.pack()) {
        signal.throwIfAborted()
        yield part
        done += part.length
        onProgress?.({ done, total, unit: 'bytes' })
      }
    }
    const isSmall = command.length + total <= MAX_BUFFERED_BYTES
    const answer = await this.send(remote, 'push', signal, {
      method: 'POST',
      url: `${remote.url}/git-receive-pack`,
      headers: {
        'content-type': 'application/x-git-receive-pack-request',
        accept: 'application/x-git-receive-pack-result',
      },
      body: isSmall ? Buffer.concat(await Array.fromAsync(body())) : body(),
    })
    if (answer.status !== 200) throw this.toError(answer, remote, 'push')
    try {
      return parseReport(answer.body, update.ref, capabilities)
    } catch (error) {
      throw this.toProtocolError(error, remote)
    }
  }

  /** Why a push was declined, and all that was said about it, for the log. */
  describeRefusal(report: PushReport, { fullName, url }: Remote): { error: ForgeError; words: string } {
    const { endpoints: addresses, credential } = this.options
    const push: RefusedPush = {
      report,
      repository: fullName,
      url,
      web: addresses.web,
      redact: (text) => credential.redact(text),
    }
    return { error: toRefusalError(push), words: refusalText(push) }
  }

  private async send(
    remote: Remote,
    kind: 'read' | 'push',
    signal: AbortSignal,
    request: Pick<Parameters<HttpClient['send']>[0], 'method' | 'url' | 'headers' | 'body'>,
  ): Promise<HttpResponse> {
    const { throttle: queue, httpClient: transport, credential, callTimeoutMs } = this.options
    const isRepeatable = !(request.body && Symbol.asyncIterator in Object(request.body))
    for (let isFirst = true; ; isFirst = false) {
      const token = await credential.token(remote.owner, signal)
      const send = () =>
        transport.send({
          ...request,
          headers: {
            ...request.headers,
            authorization: `Basic ${basicCredentials(token)}`,
            'user-agent': `git/2.40.0 (${USER_AGENT})`,
          },
          signal,
          timeoutMs: callTimeoutMs,
          timeoutResetsOnProgress: true,
          maxResponseBytes: MAX_RESPONSE_BYTES,
        })
      try {
        const answer = await queue.run(kind, signal, send)
        if (answer.status === 401 && isFirst && isRepeatable && credential.invalidate(token)) continue
        return answer
      } catch (error) {
        if (!(error instanceof NetworkError)) throw error
        throw new ForgeError(
          'TRANSIENT',
          `The connection to ${remote.fullName} on GitHub failed: ${credential.redact(error.message)}.`,
        )
      }
    }
  }

  private toError(answer: HttpResponse, remote: Remote, kind: 'read' | 'push'): Error {
    if (answer.status === 404 || answer.status === 409) {
      return new RemoteNotFoundError(`${remote.fullName} is not there for git (${answer.status})`)
    }
    const { endpoints: addresses, credential } = this.options
    const doing: CallDescription = {
      action: kind === 'push' ? `take contents for ${remote.fullName}` : `let git read ${remote.fullName}`,
      grantHint: `${settingsUrl(addresses, credential)}: Contents: write`,
      redact: (text) => credential.redact(text),
    }
    if (answer.status === 413) {
      return new ForgeError(
        'TOO_LARGE',
        `GitHub, or a proxy before it, does not take that much in one push.`,
        {
          status: 413,
        },
      )
    }
    return toForgeError(withJsonMessage(answer), doing)
  }

  private toProtocolError(error: unknown, remote: Remote): unknown {
    if (!(error instanceof GitProtocolError)) return error
    return new ForgeError(
      'TRANSIENT',
      `Git's answer about ${remote.fullName} cannot be read: ${error.message}.`,
    )
  }
}

/** Git answers in plain text, where the API has JSON. */
function withJsonMessage(answer: HttpResponse): HttpResponse {
  if (!answer.headers['content-type']?.startsWith('text/plain')) return answer
  const body = Buffer.from(JSON.stringify({ message: answer.body.toString('utf8', 0, 2_000) }))
  return { ...answer, headers: { ...answer.headers, 'content-type': 'application/json' }, body }
}
