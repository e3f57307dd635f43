import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { readdir, readFile } from 'node:fs/promises'
import {
  type ClientRequest,
  createServer,
  request as httpRequest,
  type IncomingMessage,
  type Server,
} from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals'
import { deploySample } from '../../../test/support/github/deploy-sample.ts'
import { git, removeFolder, temporaryFolder } from '../../../test/support/github/git.ts'
import { waitUntil } from '../../../test/support/processes.ts'
import { type GitHttpOptions, gitHttpHandler } from './git-http.ts'

/** More than the system buffers between server and client hold. */
const LARGE = [{ path: 'large', content: randomBytes(24 * 1024 * 1024), executable: false }]
const MAX_REQUEST_BYTES = 1024 * 1024
const onLinux = process.platform === 'linux' ? test : test.skip

describe('gitHttpHandler, with hostile clients', () => {
  let folder: string
  let clones: string
  let server: Server
  let log: string[]
  const requests: ClientRequest[] = []

  beforeEach(async () => {
    folder = await temporaryFolder()
    clones = await temporaryFolder()
    log = []
  })
  afterEach(async () => {
    for (const each of requests.splice(0)) each.destroy()
    server.closeAllConnections()
    server.close()
    await once(server, 'close')
    await until(async () => (await gitProcesses()).length === 0)
    await removeFolder(folder)
    await removeFolder(clones)
  })

  async function serve(options: Partial<GitHttpOptions> = {}): Promise<string> {
    const handler = gitHttpHandler({
      folder,
      cloneUrlBase: '',
      log: (message) => log.push(message),
      ...options,
    })
    server = createServer(handler).listen(0, '127.0.0.1')
    await once(server, 'listening')
    return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  }

  const bySubject = { subjectOf: (request: IncomingMessage) => String(request.headers['x-subject']) }

  describe.each(['a slow reader', 'an unfinished request'])('%s', (kind) => {
    const attack = kind === 'a slow reader' ? slowReader : unfinishedPost

    test('does not block clones of another subject', async () => {
      const { commit } = await deploySample(folder, { files: LARGE })
      const url = await serve(bySubject)
      for (let i = 0; i < 60; i++) attack(`${url}/acme/site.git`, { 'x-subject': 'greedy', commit })
      if (attack === slowReader) await until(async () => (await gitProcesses()).length > 0)
      await clone(url, 'acme/site', 'other', 'polite')
    })

    test('does not block clones of another organization when requests have no subject', async () => {
      const { commit } = await deploySample(folder, { files: LARGE })
      await deploySample(folder, { owner: 'other' })
      const url = await serve()
      for (let i = 0; i < 60; i++) attack(`${url}/acme/site.git`, { commit })
      if (attack === slowReader) await until(async () => (await gitProcesses()).length > 0)
      await clone(url, 'other/site', 'other')
    })
  })

  test('asks to retry later when too many requests of one subject wait, and forgets those that disconnect', async () => {
    await deploySample(folder)
    const url = await serve(bySubject)
    const refusal = Promise.withResolvers<IncomingMessage>()
    for (let i = 0; i < 41; i++) {
      unfinishedPost(`${url}/acme/site.git`, { 'x-subject': 'greedy' }).on('response', refusal.resolve)
    }
    const answer = await refusal.promise
    expect([answer.statusCode, answer.headers['retry-after']]).toEqual([503, '5'])

    for (const each of requests) each.destroy()
    await clone(url, 'acme/site', 'again', 'greedy')
  })

  test('does not let a request wait forever', async () => {
    const { commit } = await deploySample(folder, { files: LARGE })
    const url = await serve({ limits: { processes: 1, maxWaitMs: 200 } })
    await response(slowReader(`${url}/acme/site.git`, { commit }))
    const answer = await fetch(`${url}/acme/site.git/info/refs?service=git-upload-pack`)
    expect([answer.status, answer.headers.get('retry-after')]).toEqual([503, '5'])
    expect(await answer.text()).toContain('Too many clones')
  })

  test('cuts off a slow reader, and ends git with its children', async () => {
    const { commit } = await deploySample(folder, { files: LARGE })
    const url = await serve({ limits: { minReadRate: { bytesPerSecond: 64 * 1024, toleranceSeconds: 1 } } })
    const answer = await response(slowReader(`${url}/acme/site.git`, { commit }))
    expect(answer.statusCode).toBe(200)
    await until(async () => log.length > 0)
    expect(log).toEqual(['Response cut off: /acme/site.git/git-upload-pack was read too slowly'])
    await until(async () => (await gitProcesses()).length === 0)
  })

  test('cuts off a response that takes too long, and ends git with its children', async () => {
    const { commit } = await deploySample(folder, { files: LARGE })
    const url = await serve({ limits: { responseTimeoutMs: 500 } })
    await response(slowReader(`${url}/acme/site.git`, { commit }))
    await until(async () => log.length > 0)
    expect(log).toEqual(['Response cut off: /acme/site.git/git-upload-pack took too long'])
    await until(async () => (await gitProcesses()).length === 0)
  })

  onLinux('limits the memory and CPU time of git and its children', async () => {
    const { commit } = await deploySample(folder, { files: LARGE })
    const url = await serve()
    await response(slowReader(`${url}/acme/site.git`, { commit }))
    // git-http-backend, git upload-pack, git pack-objects
    await until(async () => (await gitProcesses()).length === 3)
    for (const pid of await gitProcesses()) {
      const limits = await readFile(`/proc/${pid}/limits`, 'utf8')
      expect(limits).toMatch(/Max data size +536870912 /)
      expect(limits).toMatch(/Max cpu time +60 /)
    }
  })

  const haves = (bytes: number) => {
    const line = (i: number) => `0032have ${i.toString(16).padStart(40, '0')}\n`
    const lines = Array.from({ length: Math.ceil(bytes / 50) }, (_, i) => line(i))
    return Buffer.from(`0011command=fetch0001000fno-progress${lines.join('')}0009done\n0000`)
  }

  test.each([
    ['compressed to a 400th of its size', gzipSync(Buffer.alloc(400 * 1024 * 1024)), 'gzip', 413],
    ['compressed, too large when decompressed', gzipSync(haves(1.1 * MAX_REQUEST_BYTES)), 'gzip', 413],
    ['compressed several times over', gzipSync(gzipSync('0000')), 'gzip, gzip', 415],
    ['in a compression that git never sends', Buffer.from('0000'), 'br', 415],
    ['deflated', Buffer.from('0000'), 'deflate', 415],
    ['not compressed, contrary to its header', Buffer.from('0000'), 'gzip', 400],
    ['compressed and cut off', gzipSync(haves(10_000)).subarray(0, 100), 'gzip', 400],
    ['plain and too large', haves(1.1 * MAX_REQUEST_BYTES), undefined, 413],
    ['plain and far too large', Buffer.alloc(48 * 1024 * 1024, '0'), undefined, 413],
  ] as const)('refuses a request that is %s', async (_name, body, encoding, status) => {
    await deploySample(folder)
    const url = await serve({ limits: { processes: 0 } }) // git is not reached
    for (const isChunked of [false, true]) {
      const answer = await post(`${url}/acme/site.git`, body, { encoding, isChunked })
      expect([isChunked, answer.statusCode]).toEqual([isChunked, status])
    }
  })

  test('accepts a negotiation of 20,000 commits, compressed or in chunks', async () => {
    const { commit } = await deploySample(folder)
    const url = await serve()
    const body = Buffer.from(
      haves(20_000 * 50)
        .toString()
        .replace('0009done\n', `0032want ${commit}\n0009done\n`),
    )
    expect(body.length).toBeLessThan(MAX_REQUEST_BYTES)
    for (const encoding of ['gzip', 'x-gzip', 'identity', undefined]) {
      const bytes = encoding?.endsWith('gzip') ? gzipSync(body) : body
      for (const isChunked of [false, true]) {
        const answer = await post(`${url}/acme/site.git`, bytes, { encoding, isChunked })
        const parts = await answer.toArray()
        expect([answer.statusCode, Buffer.concat(parts).includes('PACK')]).toEqual([200, true])
      }
    }
  })

  test('refuses a request that does not arrive in time', async () => {
    await deploySample(folder)
    const url = await serve({ limits: { requestTimeoutMs: 100 } })
    const answer = await response(unfinishedPost(`${url}/acme/site.git`, {}))
    expect(answer.statusCode).toBe(408)
  })

  test('logs the error output of git', async () => {
    await deploySample(folder)
    const url = await serve()
    await (
      await post(`${url}/acme/site.git`, Buffer.from('0014command=ls-refs\n0009what\n0000'), {})
    ).toArray()
    await until(async () => log.length > 0)
    expect(log).toEqual([expect.stringMatching(/^git http-backend: fatal: /)])
  })

  test.each(['sparse:oid=HEAD', 'combine:blob:none+tree:0'])(
    'refuses the filter %s, which costs the server work that the client defines',
    async (filter) => {
      await deploySample(folder)
      const url = await serve()
      const cloned = git(clones, 'clone', '-q', '--bare', `--filter=${filter}`, `${url}/acme/site.git`, 'a')
      await expect(cloned).rejects.toThrow(/filter '(sparse|combine).*' not supported/)
    },
  )

  test.each(['blob:none', 'blob:limit=10', 'tree:0', 'object:type=commit'])(
    'serves the filter %s',
    async (filter) => {
      const { commit } = await deploySample(folder)
      const url = await serve()
      await git(clones, 'clone', '-q', '--bare', `--filter=${filter}`, `${url}/acme/site.git`, 'a')
      expect((await git(join(clones, 'a'), 'rev-parse', 'HEAD')).trim()).toBe(commit)
    },
  )

  async function clone(url: string, repository: string, name: string, subject = ''): Promise<void> {
    await git(
      ...([clones, '-c', `http.extraHeader=X-Subject: ${subject}`, 'clone', '-q', '--bare'] as const),
      `${url}/${repository}.git`,
      name,
    )
    expect(await git(join(clones, name), 'rev-list', '--count', '--all')).toBe('1\n')
  }

  /** Reads only what the system buffers. */
  function slowReader(url: string, { commit = '', ...headers }: Record<string, string>): ClientRequest {
    const fetchAll = `0011command=fetch00010032want ${commit}\n0009done\n0000`
    const request = openPost(url, headers)
    request.end(fetchAll)
    return request
  }

  function unfinishedPost(url: string, { commit: _, ...headers }: Record<string, string>): ClientRequest {
    const request = openPost(url, { ...headers, 'content-length': '1000' })
    request.write('0')
    return request
  }

  function openPost(url: string, headers: Record<string, string>): ClientRequest {
    const request = httpRequest(`${url}/git-upload-pack`, {
      method: 'POST',
      headers: {
        'content-type': 'application/x-git-upload-pack-request',
        'git-protocol': 'version=2',
        ...headers,
      },
      agent: false,
    })
    request.on('error', () => {}) // the test destroys it
    request.on('response', (answer) => answer.on('error', () => {}))
    requests.push(request)
    return request
  }

  async function post(
    url: string,
    body: Uint8Array,
    { encoding, isChunked }: { encoding?: string | undefined; isChunked?: boolean },
  ): Promise<IncomingMessage> {
    const request = openPost(url, {
      ...(encoding && { 'content-encoding': encoding }),
      ...(isChunked ? { 'transfer-encoding': 'chunked' } : { 'content-length': String(body.length) }),
    })
    request.end(body)
    return response(request)
  }

  async function response(request: ClientRequest): Promise<IncomingMessage> {
    const [answer] = (await once(request, 'response')) as [IncomingMessage]
    return answer
  }

  /** The ids of git and its children, found by the folder that they serve. Empty without /proc. */
  async function gitProcesses(): Promise<string[]> {
    const found: string[] = []
    for (const pid of (await readdir('/proc').catch(() => [])).filter((name) => /^\d+$/.test(name))) {
      const variables = await readFile(`/proc/${pid}/environ`, 'latin1').catch(() => '')
      if (variables.split('\0').includes(`GIT_PROJECT_ROOT=${folder}`)) found.push(pid)
    }
    return found
  }

  const until = (condition: () => Promise<boolean>) => waitUntil(condition, String(condition), 20_000)
})
