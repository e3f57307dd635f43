import { once } from 'node:events'
import { createServer, request as httpRequest, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals'
import { deploySample } from '../../../test/support/github/deploy-sample.ts'
import { git, removeFolder, temporaryFolder } from '../../../test/support/github/git.ts'
import { packContents } from '../../../test/support/github/pack-contents.ts'
import { codeFiles, EDGE_CASE_FILES, SAMPLE_PLAN } from '../../../test/support/github/sample-contents.ts'
import { preparedContents } from '../git/commit-pack.ts'
import { type GitHttpOptions, gitHttpHandler } from './git-http.ts'
import { LocalForge } from './local-forge.ts'

const context = { signal: new AbortController().signal }
const SAMPLE = await packContents(EDGE_CASE_FILES, SAMPLE_PLAN)

describe('gitHttpHandler', () => {
  let folder: string
  let clones: string
  let server: Server | undefined
  let log: string[]

  beforeEach(async () => {
    folder = await temporaryFolder()
    clones = await temporaryFolder()
    log = []
  })
  afterEach(async () => {
    if (server !== undefined) {
      server.closeAllConnections()
      server.close()
      await once(server, 'close')
      server = undefined
    }
    await removeFolder(folder)
    await removeFolder(clones)
  })

  async function serve(options: Partial<GitHttpOptions> = {}): Promise<string> {
    const handler = gitHttpHandler({
      folder,
      cloneUrlBase: 'https://ship.example/git',
      log: (message) => log.push(message),
      ...options,
    })
    server = createServer(handler).listen(0, '127.0.0.1')
    await once(server, 'listening')
    return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  }

  test.each(['0', '1', '2'])('serves clones by protocol version %s', async (version) => {
    await deploySample(folder)
    const url = await serve()
    await git(
      clones,
      '-c',
      `protocol.version=${version}`,
      'clone',
      '-q',
      '--bare',
      `${url}/acme/site.git`,
      'a',
    )
    expect(await git(join(clones, 'a'), 'fsck', '--full', '--strict')).toBe('')
    expect((await git(join(clones, 'a'), 'rev-parse', 'HEAD')).trim()).toBe(SAMPLE.commit)
    expect(log).toEqual([])
  })

  test('serves shallow and partial clones, and names in any case, with or without .git', async () => {
    await deploySample(folder)
    const url = await serve()
    await git(clones, 'clone', '-q', '--bare', '--depth', '1', `${url}/ACME/Site`, 'shallow')
    await git(clones, 'clone', '-q', '--bare', '--filter=blob:none', `${url}/acme/SITE.git`, 'partial')
    for (const name of ['shallow', 'partial']) {
      expect((await git(join(clones, name), 'rev-parse', 'HEAD')).trim()).toBe(SAMPLE.commit)
    }
  })

  test('refuses a client of the dumb protocol with an explanation', async () => {
    await deploySample(folder)
    const url = await serve()
    const response = await fetch(`${url}/acme/site.git/info/refs`)
    expect([response.status, await response.text()]).toEqual([403, expect.stringContaining('smart HTTP')])
  })

  test('serves clones during a push, without its contents', async () => {
    const url = await serve()
    const forge = new LocalForge({ folder, cloneUrlBase: '' })
    const packed = await packContents(codeFiles(1000), SAMPLE_PLAN)
    await forge.ensureOrganization({ login: 'acme' }, context)
    const repository = await forge.ensureRepository(
      {
        owner: 'acme',
        name: 'site',
        visibility: 'PUBLIC',
        description: null,
        intentId: '1',
        knownId: null,
        branch: 'main',
        plannedCommit: packed.commit,
      },
      context,
    )
    const midway = async function* () {
      const [first = new Uint8Array(), ...others] = packed.packParts
      yield first
      await git(clones, 'clone', '-q', '--bare', `${url}/acme/site.git`, 'early')
      yield* others
    }
    const contents = preparedContents(packed, midway, async () => packed.index)
    const push = {
      owner: 'acme',
      name: 'site',
      repositoryId: repository.id,
      branch: 'main',
      expectedHead: null,
    }
    await forge.pushContents({ ...push, contents }, context)
    expect(await git(join(clones, 'early'), 'rev-list', '--all')).toBe('')
    await git(join(clones, 'early'), 'fetch', '-q', 'origin', 'main')
    expect((await git(join(clones, 'early'), 'rev-parse', 'FETCH_HEAD')).trim()).toBe(packed.commit)
  })

  test('queues clones beyond the limit of git processes', async () => {
    await deploySample(folder)
    const url = await serve({ limits: { processes: 1 } })
    const names = ['a', 'b', 'c', 'd', 'e', 'f']
    await Promise.all(names.map((name) => git(clones, 'clone', '-q', '--bare', `${url}/acme/site.git`, name)))
    for (const name of names) {
      expect((await git(join(clones, name), 'rev-parse', 'HEAD')).trim()).toBe(SAMPLE.commit)
    }
  })

  test('accepts compressed requests', async () => {
    await deploySample(folder)
    const url = await serve()
    const response = await fetch(`${url}/acme/site.git/git-upload-pack`, {
      method: 'POST',
      headers: {
        'Content-Type': 'application/x-git-upload-pack-request',
        'Content-Encoding': 'gzip',
        'Git-Protocol': 'version=2',
      },
      body: gzipSync('0014command=ls-refs\n00010000'),
    })
    expect(await response.text()).toContain(`${SAMPLE.commit} refs/heads/main`)
  })

  test('keeps responses out of shared caches', async () => {
    await deploySample(folder)
    const url = `${await serve()}/acme/site.git`
    for (const path of ['/info/refs?service=git-upload-pack', '']) {
      const response = await fetch(url + path)
      expect([path, response.status]).toEqual([path, 200])
      expect(response.headers.get('cache-control')).toMatch(/private|no-cache/)
      expect(response.headers.get('cache-control')).not.toContain('public')
    }
  })

  test('refuses pushes with an explanation', async () => {
    await deploySample(folder)
    const url = await serve()
    await git(clones, 'clone', '-q', '--bare', `${url}/acme/site.git`, 'a')
    await expect(git(join(clones, 'a'), 'push', `${url}/acme/site.git`, 'main:other')).rejects.toThrow('403')
    const response = await fetch(`${url}/acme/site.git/git-receive-pack`, { method: 'POST', body: '0000' })
    expect([response.status, await response.text()]).toEqual([403, expect.stringContaining('read-only')])
  })

  test('shows people the clone command and the state of the branch', async () => {
    await deploySample(folder)
    const url = await serve()
    for (const path of ['/acme/site.git', '/Acme/SITE', '/acme/site/']) {
      const response = await fetch(url + path)
      expect(response.headers.get('content-type')).toBe('text/plain; charset=utf-8')
      expect(await response.text()).toBe(
        `acme/site\n\ngit clone https://ship.example/git/acme/site.git\n\nmain is at ${SAMPLE.commit}\n`,
      )
    }
  })

  test.each([
    '/',
    '/acme',
    '/acme/other.git',
    '/acme/other.git/info/refs?service=git-upload-pack',
    '/acme/site.git/HEAD',
    '/acme/site.git/objects/info/packs',
    '/acme/site.git/config',
    '/acme/site.git/shipcast/repository.json',
    '/acme/site.git/refs/heads/main',
    '/acme/site.git/objects/../config',
    '/acme/site.git/objects/%2e%2e/config',
    '/acme/site.git/objects/info/alternates',
    '/../etc/passwd',
    '/acme/..%2f..%2fetc/passwd',
    '/.tmp/site.git/HEAD',
    '/acme/%00.git/HEAD',
    '//HEAD',
    '//',
  ])('has no page at %s', async (path) => {
    await deploySample(folder)
    expect(await rawStatus(await serve(), path)).toBe(404)
  })

  test('serves only git-upload-pack, by GET and POST', async () => {
    await deploySample(folder)
    const url = await serve()
    const response = await fetch(
      `${url}/acme/site.git/info/refs?service=git-upload-pack&service=git-receive-pack`,
    )
    expect(await response.text()).not.toContain('receive-pack')
    expect((await fetch(`${url}/acme/site.git`, { method: 'DELETE' })).status).toBe(405)
  })

  /** Sends the path unchanged, which `fetch` would normalize. */
  async function rawStatus(url: string, path: string): Promise<number | undefined> {
    const { hostname, port } = new URL(url)
    const [response] = await once(httpRequest({ hostname, port, path, agent: false }).end(), 'response')
    response.resume()
    return response.statusCode
  }
})
