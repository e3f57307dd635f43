import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from '@jest/globals'
import { Cluster } from './support/cluster.ts'
import { createDataFolder, type DataFolder } from './support/data-folder.ts'
import { git } from './support/github/git.ts'
import { DEPLOY_MUTATION, type DeployResult, deployInput } from './support/inputs.ts'
import { waitUntil, withTimeout } from './support/processes.ts'
import { ReconnectingViewer } from './support/reconnecting-viewer.ts'
import { RestartablePostgres } from './support/restartable-postgres.ts'
import { findFreePort } from './support/test-server.ts'
import { Viewer } from './support/viewer.ts'

/** An ordinary user's PATH lacks nginx's folder. */
const NGINX = ['nginx', '/usr/sbin/nginx', '/usr/local/sbin/nginx', '/opt/homebrew/bin/nginx'].find(
  (command) => spawnSync(command, ['-v']).status === 0,
)
const isInstalled = NGINX !== undefined
const withNginx = isInstalled ? test : test.skip
if (!isInstalled) console.info('nginx is not installed: docs/nginx.conf is not tested here.')

let postgres: RestartablePostgres
let cluster: Cluster
let nginx: ChildProcess
let folder: DataFolder
let host: string

beforeAll(async () => {
  if (!isInstalled) return
  host = `127.0.0.1:${await findFreePort()}`
  folder = await createDataFolder()
  postgres = await RestartablePostgres.start()
  cluster = await Cluster.start(postgres, { env: { PUBLIC_URL: `http://${host}` } })
  nginx = await startNginx()
})

afterAll(async () => {
  if (!isInstalled) return
  const exited = once(nginx, 'exit')
  nginx.kill('SIGQUIT')
  await withTimeout(exited, 'nginx ends')
  await cluster.stop()
  await postgres.remove()
  await folder.remove()
})

/** The documented example, with other addresses. */
async function startNginx(): Promise<ChildProcess> {
  let config = await readFile('docs/nginx.conf', 'utf8')
  for (const [i, node] of cluster.nodes.entries()) {
    config = config.replace(`127.0.0.1:${3001 + i}`, `127.0.0.1:${node.port}`)
  }
  const file = join(folder.path, 'nginx.conf')
  await writeFile(file, config.replace('127.0.0.1:8080', host).replace('http {', `http {${TEMPORARY}`))
  const child = spawn(NGINX ?? 'nginx', ['-p', folder.path, '-c', file, '-g', 'daemon off;'], {
    stdio: 'ignore',
  })
  await waitUntil(async () => (await ready()) === 200, 'nginx responds')
  return child
}

const TEMPORARY = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
  .map((name) => `\n  ${name}_temp_path tmp_${name};`)
  .join('')

async function ready(): Promise<number> {
  const response = await fetch(`http://${host}/health/ready`).catch(() => undefined)
  return response?.status ?? 0
}

async function deploy(request: Record<string, unknown>): Promise<DeployResult['deploy']> {
  const response = await fetch(`http://${host}/graphql`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ query: DEPLOY_MUTATION, variables: { input: request } }),
  })
  const { data, errors } = (await response.json()) as { data: DeployResult; errors?: unknown }
  if (errors) throw new Error(JSON.stringify(errors))
  return data.deploy
}

withNginx('one address for all nodes: sockets, mutations and clones', async () => {
  const viewers = [0, 1, 2, 3, 4, 5].map(() => new Viewer(`ws://${host}/graphql`))
  await Promise.all(viewers.map((viewer) => viewer.connected()))
  for (const viewer of viewers) viewer.follow()
  const request = deployInput()
  const { id } = await deploy(request)
  for (const viewer of viewers) {
    expect((await viewer.waitForEnd(id)).map(({ sequence }) => sequence)).toEqual([1, 2, 3, 4, 5])
  }
  const cloneUrl = viewers[0]?.eventsOf(id).at(-1)?.deployment.cloneUrl
  expect(cloneUrl).toBe(`http://${host}/git/${request.org}/${request.repo}.git`)
  expect(await git('/', 'ls-remote', String(cloneUrl), 'refs/heads/main')).toMatch(/^[0-9a-f]{40}\t/)
  await Promise.all(viewers.map((viewer) => viewer.close()))
})

withNginx('a rolling restart: repeated requests succeed, and viewers receive every event', async () => {
  const first = new Viewer(`ws://${host}/graphql`)
  const { cursor } = await first.connected()
  await first.close()
  const viewers = Array.from({ length: 6 }, () => new ReconnectingViewer([`ws://${host}/graphql`], cursor))
  const ids: string[] = []
  let isOver = false
  const posting = (async () => {
    while (!isOver) {
      const request = deployInput({ idempotencyKey: crypto.randomUUID() })
      await waitUntil(async () => {
        const id = await deploy(request).then(
          (deployment) => deployment.id,
          () => undefined,
        )
        if (id) ids.push(id)
        return id !== undefined
      }, 'a node accepts the deployment')
      await sleep(100)
    }
  })()
  for (const node of cluster.nodes) {
    await node.stop()
    await node.start()
    await waitUntil(async () => (await fetch(`${node.url}/health/ready`)).status === 200, 'the node is ready')
  }
  isOver = true
  await posting
  for (const viewer of viewers) {
    await waitUntil(() => {
      const ended = new Set(
        viewer.allEvents().flatMap((event) => (event.step === 'DONE' ? [event.deploymentId] : [])),
      )
      return ids.every((id) => ended.has(id))
    }, 'the viewer has received the end of each deployment')
    await viewer.close()
    const positions = viewer.events.map((event) => Number(event.cursor))
    expect(positions).toEqual(positions.map((_, i) => Number(cursor) + 1 + i))
  }
})
