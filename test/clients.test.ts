import { mkdir, rm, writeFile } from 'node:fs/promises'
import { afterAll, beforeAll, expect, test } from '@jest/globals'
import { ClientProgram } from './support/client-program.ts'
import { codeBlocks } from './support/code-blocks.ts'
import { createDataFolder } from './support/data-folder.ts'
import { MAX_WAIT_MS, waitUntil } from './support/processes.ts'
import { TestServer } from './support/test-server.ts'

const CLIENTS = ['graphql-ws.js', 'apollo.js', 'urql.js', 'relay.js']

// In the repository, so that the programs find the libraries, like a reader's own files.
const folder = `clients-${process.pid}.tmp`
const servers: TestServer[] = []
const programs: ClientProgram[] = []

beforeAll(async () => {
  await mkdir(`${folder}/__generated__`, { recursive: true })
  await writeFile(`${folder}/__generated__/Templates.graphql.js`, artifact(templates))
  await writeFile(`${folder}/__generated__/Watch.graphql.js`, artifact(watch))
})

afterAll(async () => {
  for (const program of programs) await program.stop()
  for (const server of servers) await server.stop()
  for (const server of servers) await server.removeData()
  await rm(folder, { recursive: true, force: true })
})

async function startServer(options: Parameters<typeof TestServer.start>[0] = {}): Promise<TestServer> {
  const server = await TestServer.start(options)
  servers.push(server)
  return server
}

function run(file: string): ClientProgram {
  const program = new ClientProgram(`${folder}/${file}`)
  programs.push(program)
  return program
}

/** Each block of docs/clients.md begins with the name of its file. */
async function writePrograms(port: number): Promise<string[]> {
  const blocks = await codeBlocks('docs/clients.md', 'js', port)
  const files = blocks.map((code) => /^\/\/ (\S+)\n/.exec(code)![1]!)
  for (const [i, file] of files.entries()) {
    await writeFile(`${folder}/${file}`, blocks[i]!)
  }
  return files
}

async function waitForSubscriptions(server: TestServer, count: number): Promise<void> {
  await waitUntil(
    async () => (await (await fetch(`${server.url}/metrics`)).text()).includes(`shipcast_members ${count}\n`),
    () => `${count} subscriptions are open. Output:\n${programs.map((p) => p.output).join('\n---\n')}`,
    MAX_WAIT_MS,
  )
}

async function deploy(server: TestServer, repo: string): Promise<string> {
  const answer = await server.request<{ deploy: { id: string } }>(
    'mutation ($input: DeployInput!) { deploy(input: $input) { id } }',
    { input: { org: 'acme', repo, contents: { template: { name: 'hello-world' } } } },
  )
  if (!answer.data) throw new Error(JSON.stringify(answer.errors))
  return answer.data.deploy.id
}

async function waitForSuccess(server: TestServer, id: string): Promise<void> {
  const query = 'query ($id: ID!) { deployment(id: $id) { status } }'
  const status = async () =>
    (await server.request<{ deployment: { status: string } }>(query, { id })).data.deployment.status
  await waitUntil(async () => (await status()) === 'SUCCEEDED', 'the deployment has succeeded', MAX_WAIT_MS)
}

const lastOf = (id: string) => new RegExp(`deploymentId: '${id}',\\s+sequence: 5`)
const sequencesOf = (id: string, output: string) =>
  [...output.matchAll(/deploymentId: '(.*?)',\s+sequence: (\d+)/g)]
    .filter((match) => match[1] === id)
    .map((match) => match[2])
    .join('')

test('graphql-ws, Apollo Client, urql and Relay miss and repeat no event over kill -9, a restart and another log', async () => {
  const first = await startServer()
  // On the same database, so that deployments continue while the clients' node is stopped.
  const second = await startServer({ dataDir: first.dataDir })
  expect(await writePrograms(first.port)).toEqual(['shipcast-client.js', ...CLIENTS])
  const clients = CLIENTS.map(run)
  await waitForSubscriptions(first, CLIENTS.length)

  // The first time, no client has received an event yet.
  const ids: string[] = []
  for (const end of ['kill', 'stop'] as const) {
    await first[end]()
    const id = await deploy(second, `meanwhile-${end}`)
    await waitForSuccess(second, id)
    await first.start()
    await Promise.all(clients.map((client) => client.waitForOutput(lastOf(id))))
    ids.push(id)
  }

  await second.stop()
  await first.stop()
  const other = await startServer({ dataDir: (await createDataFolder()).path, port: first.port })
  await waitForSubscriptions(other, CLIENTS.length)
  ids.push(await deploy(other, 'another-log'))
  await Promise.all(clients.map((client) => client.waitForOutput(lastOf(ids.at(-1)!))))

  for (const [i, client] of clients.entries()) {
    expect([CLIENTS[i], ...ids.map((id) => sequencesOf(id, client.output))]).toEqual([
      CLIENTS[i],
      ...ids.map(() => '12345'),
    ])
    if (CLIENTS[i] !== 'graphql-ws.js') expect(client.output).toContain('templates: 3')
  }

  // An error that the sink itself throws is printed, and the event is delivered again.
  await writeFile(
    `${folder}/throwing.js`,
    `import { createShipcastClient } from './shipcast-client.js'
     let failures = 1
     createShipcastClient({ url: '${other.socketUrl}' }).subscribe(
       { query: 'subscription ($after: String) { deploymentStatus(after: $after) { cursor deploymentId sequence } }' },
       { next({ data }) { if (failures-- > 0) throw new Error('thrown by the sink'); console.log(data.deploymentStatus) }, error: console.error, complete() {} })`,
  )
  const throwing = run('throwing.js')
  await waitForSubscriptions(other, CLIENTS.length + 1)
  const last = await deploy(other, 'thrown')
  await throwing.waitForOutput(lastOf(last))
  expect(throwing.output).toContain('thrown by the sink')
  expect(sequencesOf(last, throwing.output)).toBe('12345')
}, 300_000)

test('an error that a retry cannot fix ends a subscription, with the reason', async () => {
  const server = await startServer({ env: { ACCESS: 'required' } })
  await writePrograms(server.port)
  const client = run('graphql-ws.js')
  await client.waitForOutput(/send a valid token/)
  await client.waitForExit()
})

// The output of relay-compiler for the two documents.
const scalar = (name: string) => ({ alias: null, args: null, kind: 'ScalarField', name, storageKey: null })
const templates = request('Templates', 'query', '{ templates { name } }', [], {
  alias: null,
  args: null,
  concreteType: 'Template',
  kind: 'LinkedField',
  name: 'templates',
  plural: true,
  selections: [scalar('name')],
  storageKey: null,
})
const watch = request(
  'Watch',
  'subscription',
  '($after: String) { deploymentStatus(after: $after) { cursor deploymentId sequence status text } }',
  [{ defaultValue: null, kind: 'LocalArgument', name: 'after' }],
  {
    alias: null,
    args: [{ kind: 'Variable', name: 'after', variableName: 'after' }],
    concreteType: 'DeploymentEvent',
    kind: 'LinkedField',
    name: 'deploymentStatus',
    plural: false,
    selections: ['cursor', 'deploymentId', 'sequence', 'status', 'text'].map(scalar),
    storageKey: null,
  },
)

function request(
  name: string,
  kind: string,
  body: string,
  argumentDefinitions: object[],
  field: object,
): object {
  const type = kind === 'query' ? 'Query' : 'Subscription'
  return {
    fragment: { argumentDefinitions, kind: 'Fragment', metadata: null, name, selections: [field], type },
    kind: 'Request',
    operation: { argumentDefinitions, kind: 'Operation', name, selections: [field] },
    params: {
      cacheID: name,
      id: null,
      metadata: {},
      name,
      operationKind: kind,
      text: `${kind} ${name} ${body}`,
    },
  }
}

function artifact(node: object): string {
  return `export default ${JSON.stringify(node)}`
}
