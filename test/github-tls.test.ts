import { once } from 'node:events'
import { createServer, type Server } from 'node:http'
import { type AddressInfo, connect } from 'node:net'
import { afterAll, beforeAll, expect, test } from '@jest/globals'
import { FaultGitHub } from './support/github/fault-github.ts'
import { git } from './support/github/git.ts'
import { AUTHORITY_FILE } from './support/github/tls/certificate.ts'
import { DEPLOY_MUTATION, type DeployResult, deployInput } from './support/inputs.ts'
import { createTestDatabase, type TestDatabase } from './support/test-database.ts'
import { TestServer } from './support/test-server.ts'
import { type ReceivedEvent, Viewer } from './support/viewer.ts'

/* A GitHub whose certificate is from a private authority, as on many Enterprise Servers. */

let github: FaultGitHub
let database: TestDatabase
let proxy: Server
/** The hosts that the proxy was asked to connect to. */
const tunnels: string[] = []

beforeAll(async () => {
  github = await FaultGitHub.start({ isSecure: true })
  database = await createTestDatabase()
  proxy = createServer((_request, response) => response.writeHead(400).end())
  proxy.on('connect', (request, socket, head) => {
    tunnels.push(request.url ?? '')
    const { port, hostname } = new URL(`http://${request.url}`)
    const upstream = connect(Number(port), hostname, () => {
      socket.write('HTTP/1.1 200 Connection Established\r\n\r\n')
      upstream.write(head)
      upstream.pipe(socket).pipe(upstream)
    })
    upstream.on('error', () => socket.destroy())
    socket.on('error', () => upstream.destroy())
    socket.on('close', () => upstream.destroy())
  })
  proxy.listen(0, '127.0.0.1')
  await once(proxy, 'listening')
})

afterAll(async () => {
  proxy.closeAllConnections()
  proxy.close()
  await database.drop()
  await github.close()
})

test('a deployment fails at once with advice if the authority is unknown; once configured, a retry succeeds, also through a proxy', async () => {
  const id = await withServer({}, async (server) => {
    const { id, events } = await deploy(server)
    expect(events.map(({ status }) => status)).not.toContain('WAITING')
    expect(events.at(-1)).toMatchObject({
      status: 'FAILED',
      error: { code: 'UNTRUSTED', retryable: true },
    })
    expect(events.at(-1)?.error?.message).toContain('NODE_EXTRA_CA_CERTS')
    return id
  })
  expect(github.requests).toEqual([])

  await withServer({ NODE_EXTRA_CA_CERTS: AUTHORITY_FILE }, async (server) => {
    const retried = await server.request('mutation ($id: ID!) { retryDeployment(id: $id) { id } }', { id })
    expect(retried.errors).toBeUndefined()
    await expectDone(await follow(server, id))
  })

  const { port } = proxy.address() as AddressInfo
  const env = { NODE_EXTRA_CA_CERTS: AUTHORITY_FILE, HTTPS_PROXY: `http://127.0.0.1:${port}` }
  await withServer(env, async (server) => {
    github.requests.length = 0
    await expectDone((await deploy(server)).events)
    expect(github.countRequests(/^POST .*git-receive-pack$/)).toBe(1)
    expect(new Set(tunnels)).toEqual(new Set([new URL(github.origin).host]))
  })
  expect(github.violations).toEqual([])
}, 60_000)

async function withServer<T>(
  env: Record<string, string>,
  run: (server: TestServer) => Promise<T>,
): Promise<T> {
  const server = await TestServer.start({
    env: {
      DATABASE_URL: database.url,
      GITHUB_API_URL: github.url,
      GITHUB_TOKEN: github.token,
      GITHUB_WRITE_SPACING_MS: '0',
      ...env,
    },
  })
  try {
    return await run(server)
  } finally {
    await server.stop()
    await server.removeData()
  }
}

async function deploy(server: TestServer): Promise<{ id: string; events: ReceivedEvent[] }> {
  const { data } = await server.request<DeployResult>(DEPLOY_MUTATION, { input: deployInput() })
  const { id } = data.deploy
  return { id, events: await follow(server, id) }
}

/** A deployment's events to the end of this attempt. */
async function follow(server: TestServer, id: string): Promise<ReceivedEvent[]> {
  const viewer = new Viewer(server.socketUrl)
  await viewer.connected()
  viewer.follow({ deploymentId: id })
  const events = await viewer.waitForEnd(id)
  await viewer.close()
  return events
}

async function expectDone(events: readonly ReceivedEvent[]): Promise<void> {
  const last = events.at(-1)
  expect(last).toMatchObject({ step: 'DONE', status: 'SUCCEEDED', error: null })
  const [, owner = '', name = ''] = /([^/]+)\/([^/]+)\.git$/.exec(last?.deployment.cloneUrl ?? '') ?? []
  const pushed = await git(github.backend.repositoryPath(owner, name), 'rev-list', '--all')
  expect(pushed.trim()).toBe(last?.deployment.commitSha)
}
