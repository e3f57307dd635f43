import { execFile } from 'node:child_process'
import { rm, writeFile } from 'node:fs/promises'
import { promisify } from 'node:util'
import { afterAll, beforeAll, expect, test } from '@jest/globals'
import { ClientProgram } from './support/client-program.ts'
import { codeBlocks } from './support/code-blocks.ts'
import { createDataFolder } from './support/data-folder.ts'
import { MAX_WAIT_MS, waitUntil } from './support/processes.ts'
import { TestServer } from './support/test-server.ts'

const servers: TestServer[] = []
let client: ClientProgram
let curl: string
// Beside node_modules, so that it resolves graphql-ws like a reader's own file.
const script = `readme-${process.pid}.tmp.mjs`

beforeAll(async () => {
  const { port } = await startServer()
  const find = async (language: string, content: string) => {
    const found = (await codeBlocks('README.md', language, port)).find((code) => code.includes(content))
    if (!found) throw new Error(`README.md has no ${language} block with "${content}".`)
    return found
  }
  curl = await find('sh', 'curl')
  await writeFile(script, await find('js', 'createClient'))
  client = new ClientProgram(script)
})

afterAll(async () => {
  await client?.stop()
  for (const server of servers) await server.stop()
  for (const server of servers) await server.removeData()
  await rm(script, { force: true })
})

async function startServer(options: Parameters<typeof TestServer.start>[0] = {}): Promise<TestServer> {
  const server = await TestServer.start(options)
  servers.push(server)
  return server
}

async function deploy(repo: string): Promise<string> {
  const command = curl.replace('"hello"', `"${repo}"`).replace('order-4711', repo)
  const { stdout } = await promisify(execFile)('sh', ['-c', command])
  const { data } = JSON.parse(stdout) as { data: { deploy: { id: string } } }
  return data.deploy.id
}

const endOf = (id: string) => new RegExp(`${id}[^}]*SUCCEEDED`)

test("the README's curl deploys, and its client follows through a restart, without missing an event", async () => {
  const [server] = servers as [TestServer]
  // Follows before the first event: otherwise, its first event could be a snapshot that replaces several.
  await waitForSubscription(server)
  const first = await deploy('hello')
  await client.waitForOutput(endOf(first))
  await server.kill()
  await server.start()
  const last = await deploy('hello-again')
  await client.waitForOutput(endOf(last))

  const cursors = [...client.output.matchAll(/cursor: '(\d+)'/g)].map((match) => Number(match[1]))
  expect(cursors).toEqual(cursors.map((_, i) => cursors[0]! + i))
})

test('the client continues with another log, which has other cursors', async () => {
  const [server] = servers as [TestServer]
  await server.stop()
  const other = await startServer({ port: server.port, dataDir: (await createDataFolder()).path })
  await client.waitForOutput(/Unknown or expired cursor/)
  await waitForSubscription(other)
  const id = await deploy('hello')
  await client.waitForOutput(endOf(id))
  const sequences = [...client.output.matchAll(/deploymentId: '(.*?)',\s+sequence: (\d)/g)]
  expect(sequences.filter((match) => match[1] === id).map((match) => match[2])).toEqual([
    '1',
    '2',
    '3',
    '4',
    '5',
  ])
  await other.stop()
})

test('the client reports an invalid token, and exits', async () => {
  const [server] = servers as [TestServer]
  await startServer({ port: server.port, dataDir: server.dataDir, env: { ACCESS: 'required' } })
  await client.waitForOutput(/send a valid token/)
  await client.waitForExit()
})

async function waitForSubscription(server: TestServer): Promise<void> {
  await waitUntil(
    async () => (await (await fetch(`${server.url}/metrics`)).text()).includes('shipcast_members 1\n'),
    () => `the client follows. Output:\n${client.output}`,
    MAX_WAIT_MS,
  )
}
