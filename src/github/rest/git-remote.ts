import { ForgeError } from '../forge-error.ts'
import type { PreparedContents } from '../git/commit-pack.ts'
import type { CallContext } from '../github-client.ts'
import { basicCredentials } from './credential.ts'
import {
  type Advertisement,
  GitProtocolError,
  type PushReport,
  parseAdvertisement,
  parseReport,
  pushCommand,
  type RefUpdate,
} from './git-wire.ts'
import { type GitHubCallOptions, settingsUrl, USER_AGENT } from './github-api.ts'
import { type CallDescription, toForgeError } from './github-errors.ts'
import { type HttpRequest, type HttpResponse, NetworkError } from './http-client.ts'
import { type RejectedPush, rejectionText, toPushError } from './push-errors.ts'

/** One repository, as git addresses it. */
export interface Remote {
  /** The account whose token is used. */
  owner: string
  /** For people: `acme/site`. */
  fullName: string
  /** Without a trailing slash. */
  url: string
}

export type GitService = 'git-upload-pack' | 'git-receive-pack'

/** Git does not find the repository. A new one may not be visible to git yet. */
export class RemoteNotFoundError extends Error {}

/** Like git's `http.postBuffer`: smaller bodies are sent with a length, larger ones in chunks. */
const MAX_BUFFERED_BYTES = 1024 * 1024
const MAX_RESPONSE_BYTES = 4 * 1024 * 1024
/** docs "Repository limits": one push. */
const MAX_PUSH_BYTES = 2 * 1024 ** 3

/**
 * The part of git's smart HTTP that a new branch needs: two requests per push, whatever the number of files.
 */
export class GitRemotes {
  private readonly options: GitHubCallOptions

  constructor(options: GitHubCallOptions) {
    this.options = options
  }

  /**
   * The repository's refs, and the URL that served them. Rejects with `RemoteNotFoundError` or `ForgeError`.
   */
  async fetchAdvertisement(
    remote: Remote,
    service: GitService,
    signal: AbortSignal,
  ): Promise<Advertisement & { url: string }> {
    const path = `/info/refs?service=${service}`
    const response = await this.send(remote, 'read', signal, {
      method: 'GET',
      url: `${remote.url}${path}`,
      headers: {},
    })
    if (response.status !== 200) throw this.toError(response, remote, 'read')
    try {
      // After a rename, later requests go directly to the URL of the redirect.
      return { ...parseAdvertisement(response.body, service), url: response.url.slice(0, -path.length) }
    } catch (error) {
      throw this.toProtocolError(error, remote)
    }
  }

  /**
   * Moves the ref to the commit if it is at `from`. Resolves to the server's report,
   * whether success or failure.
   */
  async push(
    remote: Remote,
    update: RefUpdate,
    contents: PreparedContents,
    { capabilities }: Advertisement,
    { signal, onProgress }: CallContext,
  ): Promise<PushReport> {
    const total = contents.packBytes
    if (total > MAX_PUSH_BYTES) {
      throw new ForgeError(
        'TOO_LARGE',
        'The contents exceed the 2 GB that GitHub accepts in one push. Start a new deployment with fewer or smaller files.',
      )
    }
    const command = pushCommand(update, capabilities, USER_AGENT)
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
    const response = await this.send(remote, 'push', signal, {
      method: 'POST',
      url: `${remote.url}/git-receive-pack`,
      headers: {
        'content-type': 'application/x-git-receive-pack-request',
        accept: 'application/x-git-receive-pack-result',
      },
      body: isSmall ? Buffer.concat(await Array.fromAsync(body())) : body(),
    })
    if (response.status !== 200) throw this.toError(response, remote, 'push')
    try {
      return parseReport(response.body, update.ref, capabilities)
    } catch (error) {
      throw this.toProtocolError(error, remote)
    }
  }

  /** The error for a declined push, and GitHub's full text for the log. */
  describeRejection(report: PushReport, { fullName, url }: Remote): { error: ForgeError; text: string } {
    const { endpoints, credential } = this.options
    const push: RejectedPush = {
      report,
      repository: fullName,
      url,
      web: endpoints.web,
      redact: (text) => credential.redact(text),
    }
    return { error: toPushError(push), text: rejectionText(push) }
  }

  private async send(
    remote: Remote,
    kind: 'read' | 'push',
    signal: AbortSignal,
    request: Pick<HttpRequest, 'method' | 'url' | 'headers' | 'body'>,
  ): Promise<HttpResponse> {
    const { throttle, httpClient, credential, callTimeoutMs } = this.options
    const isRepeatable = !(request.body && Symbol.asyncIterator in Object(request.body))
    for (let isFirst = true; ; isFirst = false) {
      const token = await credential.token(remote.owner, signal)
      const send = () =>
        httpClient.send({
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
        const response = await throttle.run(kind, signal, send)
        if (response.status === 401 && isFirst && isRepeatable && credential.invalidate(token)) continue
        return response
      } catch (error) {
        if (!(error instanceof NetworkError)) throw error
        throw new ForgeError(
          'TRANSIENT',
          `The connection to ${remote.fullName} on GitHub failed: ${credential.redact(error.message)}.`,
        )
      }
    }
  }

  private toError(response: HttpResponse, { fullName }: Remote, kind: 'read' | 'push'): Error {
    if (response.status === 404 || response.status === 409) {
      return new RemoteNotFoundError(`git does not find ${fullName} (${response.status})`)
    }
    if (response.status === 413) {
      return new ForgeError(
        'TOO_LARGE',
        'GitHub, or a proxy in front of it, does not accept a push of this size. Start a new deployment with fewer or smaller files.',
        { status: 413 },
      )
    }
    const { endpoints, credential } = this.options
    const description: CallDescription = {
      action: `${kind === 'push' ? 'push to' : 'read'} ${fullName} by git`,
      grantHint: `${settingsUrl(endpoints, credential)}: Contents: write`,
      redact: (text) => credential.redact(text),
    }
    return toForgeError(withJsonMessage(response), description)
  }

  private toProtocolError(error: unknown, { fullName }: Remote): unknown {
    if (!(error instanceof GitProtocolError)) return error
    return new ForgeError('TRANSIENT', `GitHub's git response for ${fullName} is invalid: ${error.message}.`)
  }
}

/** Git's errors are plain text; those of the API are JSON. */
function withJsonMessage(response: HttpResponse): HttpResponse {
  if (!response.headers['content-type']?.startsWith('text/plain')) return response
  return {
    ...response,
    body: Buffer.from(JSON.stringify({ message: response.body.toString('utf8', 0, 2_000) })),
  }
}
