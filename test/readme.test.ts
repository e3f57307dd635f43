import { type ChildProcessByStdio, execFile, spawn } from 'node:child_process'
import { readFile, rm, writeFile } from 'node:fs/promises'
import type { Readable } from 'node:stream'
import { promisify } from 'node:util'
import { afterAll, beforeAll, expect, test } from '@jest/globals'
import { MAX_WAIT_MS, waitUntil } from './support/processes.ts'
import { TestServer } from './support/server.ts'

let server: TestServer
let readme: string
let client: ChildProcessByStdio<null, Readable, null> | undefined
const script = `readme-${process.pid}.tmp.mjs`

beforeAll(async () => {
  server = await TestServer.start()
  readme = (await readFile('README.md', 'utf8')).replaceAll('127.0.0.1:3000', `127.0.0.1:${server.port}`)
})

afterAll(async () => {
  client?.kill()
  await server.stop()
  await server.removeData()
  await rm(script, { force: true })
})

function block(language: string, holding: string): string {
  const blocks = [...readme.matchAll(/```(\w+)\n(.*?)```/gs)]
  const found = blocks.find(([, name, code]) => name === language && code?.includes(holding))
  if (!found?.[2]) throw new Error(`README.md has no ${language} block with "${holding}".`)
  return found[2]
}

test("the README's curl deploys, and its client follows through a restart, missing nothing", async () => {
  // Beside node_modules, where it finds graphql-ws as a reader's own file would.
  await writeFile(script, block('js', 'createClient'))
  client = spawn(process.execPath, [script], { stdio: ['ignore', 'pipe', 'inherit'] })
  let output = ''
  const { stdout } = client
  stdout.on('data', (chunk: Buffer) => {
    output += chunk
  })
  const printed = async (pattern: RegExp) => {
    await waitUntil(
      () => pattern.test(output),
      () => `the client prints ${pattern}; it has printed:\n${output}`,
      MAX_WAIT_MS,
    )
  }
  const curl = block('sh', 'curl')
  const deploy = async (repo: string) => {
    const { stdout } = await promisify(execFile)('sh', [
      '-c',
      curl.replace('"hello"', `"${repo}"`).replace('order-4711', repo),
    ])
    const { data } = JSON.parse(stdout) as { data: { deploy: { id: string; status: string } } }
    return data.deploy.id
  }

  // Before anything is active: what it sees first is then the first event of all, not a state that stands for several.
  await waitUntil(
    async () => (await (await fetch(`${server.url}/metrics`)).text()).includes('shipcast_members 1\n'),
    'the client has subscribed',
  )
  const first = await deploy('hello')
  await printed(new RegExp(`${first}[^}]*SUCCEEDED`))
  await server.kill()
  await server.start()
  const last = await deploy('hello-again')
  await printed(new RegExp(`${last}[^}]*SUCCEEDED`))

  const cursors = [...output.matchAll(/cursor: '(\d+)'/g)].map((match) => Number(match[1]))
  expect(cursors).toEqual(cursors.map((_, i) => cursors[0]! + i))
})
