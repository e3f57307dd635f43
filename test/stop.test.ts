import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { connect, type Socket } from 'node:net'
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import { createDataFolder, type DataFolder } from './support/data-folder.ts'
import { DEPLOY_MUTATION, type DeployResult, deployInput } from './support/inputs.ts'
import { MAX_WAIT_MS, waitUntil } from './support/processes.ts'
import { createTestDatabase, type TestDatabase } from './support/test-database.ts'
import { TestServer } from './support/test-server.ts'
import { Viewer } from './support/viewer.ts'

/** `DRAIN_MS`, 5 s of grace, and a margin for a busy machine. Without a limit it takes minutes. */
const MAX_STOP_MS = 20_000

let database: TestDatabase
let folder: DataFolder
let server: TestServer

beforeAll(async () => {
  database = await createTestDatabase()
  folder = await createDataFolder()
  server = await TestServer.start({
    dataDir: folder.path,
    env: { DATABASE_URL: database.url, DRAIN_MS: '0' },
  })
})

afterAll(async () => {
  await server.stop()
  await database.drop()
  await folder.remove()
})

class Client {
  received = 0
  isClosed = false
  private constructor(readonly socket: Socket) {
    socket.on('error', () => undefined)
    socket.on('data', (chunk) => {
      this.received += chunk.length
    })
    socket.once('close', () => {
      this.isClosed = true
    })
  }

  static async open(text = ''): Promise<Client> {
    const socket = connect(server.port, '127.0.0.1')
    const client = new Client(socket)
    await once(socket, 'connect')
    socket.write(text)
    return client
  }

  async receivesData(): Promise<void> {
    await waitUntil(() => this.received > 0, 'the server responds')
  }
}

const HEAD = (line: string) => `${line} HTTP/1.1\r\nHost: 127.0.0.1\r\n`

describe('a node that receives SIGTERM', () => {
  test('closes idle connections, and exits at once', async () => {
    const idle = await Client.open(`${HEAD('GET /health/live')}\r\n`)
    await idle.receivesData()
    const answer = await fetch(`${server.url}/health/live`)
    // Longer than common proxies keep a connection: a request on a closing connection results in a 502.
    expect(answer.headers.get('keep-alive')).toBe('timeout=620')
    const [, proxySeconds] = /keepalive_timeout (\d+)s;/.exec(await readFile('docs/nginx.conf', 'utf8')) ?? []
    expect(Number(proxySeconds)).toBeLessThan(620)
    const startedAt = performance.now()
    await server.stop()
    expect(performance.now() - startedAt).toBeLessThan(5_000)
    await waitUntil(() => idle.isClosed, 'the idle connection is closed')
    await server.start()
  })

  test('exits in time, whatever its clients do', async () => {
    const request = deployInput({ contents: { files: [{ path: 'large', content: largeText() }] } })
    const { data } = await server.request<DeployResult>(DEPLOY_MUTATION, { input: request })
    let commit = ''
    const hasSucceeded = async () => {
      const query = 'query ($id: ID!) { deployment(id: $id) { commitSha status } }'
      const { data: found } = await server.request<{ deployment: { commitSha: string; status: string } }>(
        query,
        { id: data.deploy.id },
      )
      commit = found.deployment.commitSha
      return found.deployment.status === 'SUCCEEDED'
    }
    await waitUntil(hasSucceeded, 'the deployment has succeeded', MAX_WAIT_MS)
    const viewer = new Viewer(server.socketUrl)
    await viewer.connected()

    const silent = await Client.open()
    const slowSenders = await Promise.all([
      Client.open(HEAD('GET /')),
      Client.open(
        `${HEAD('POST /graphql')}Content-Type: application/json\r\nContent-Length: 100000\r\n\r\n{`,
      ),
      Client.open(`${HEAD('POST /auth/sign-out')}Content-Length: 100000\r\n\r\n`),
      Client.open(`${HEAD('GET /graphql')}Upgrade: websocket\r\nConnection: Upgrade\r\n`),
    ])
    const sending = setInterval(() => {
      for (const { socket } of slowSenders) if (socket.writable) socket.write('x')
    }, 100)
    // Like `git clone`, but does not read.
    const want = `0032want ${commit}\n00000009done\n`
    const cloning = await Client.open(
      `${HEAD(`POST /git/${request.org}/${request.repo}.git/git-upload-pack`)}Content-Type: application/x-git-upload-pack-request\r\nContent-Length: ${want.length}\r\n\r\n${want}`,
    )
    await cloning.receivesData()
    cloning.socket.pause()
    const startedAt = performance.now()
    await server.stop()
    expect(performance.now() - startedAt).toBeLessThan(MAX_STOP_MS)
    clearInterval(sending)
    cloning.socket.resume()
    for (const client of [silent, cloning, ...slowSenders]) {
      await waitUntil(() => client.isClosed, 'each connection is closed')
    }
    await viewer.close()
    await server.start()
  })
})

/** Incompressible. */
function largeText(): string {
  return Array.from({ length: 500_000 }, () => crypto.randomUUID()).join('\n')
}
