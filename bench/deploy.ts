import { type ChildProcess, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Database } from '../src/database/database.ts'
import { createDataFolder, removeDataFolder } from '../test/support/data-folder.ts'
import { git } from '../test/support/github/git.ts'
import { DEPLOY_MUTATION, type DeployResult } from '../test/support/inputs.ts'
import { TestServer } from '../test/support/test-server.ts'
import { Viewer } from '../test/support/viewer.ts'

// `npm run bench`: the time of a deployment compared with a lower bound, in one run on one machine.
// 1. From `deploy` to the first event at a viewer, compared with an empty query plus one
// synced commit. Target: 3 ×.
// 2. 10,000 files (20 MB) to the local forge, compared with `git fast-import`. Targets: 3
// ×, no stall over 150 ms.

const SMALL_DEPLOYMENTS = 200
const FILES = 10_000
const FILE_BYTES = 2_000
const ROUNDS = Number(process.env.ROUNDS ?? 3)

const dataDir = (await createDataFolder()).path
const server = await TestServer.start({ dataDir, nodeOptions: ['--import', './bench/loop-lag.mjs'] })
// The server's own Postgres: a second process connects to the one that is running.
const database = await Database.open({ dataDir })
const viewer = new Viewer(server.socketUrl)
try {
  await viewer.connected()
  viewer.follow()
  await benchFirstEvent()
  await benchManyFiles()
} finally {
  await viewer.close()
  await database.close()
  await server.stop()
  await removeDataFolder(dataDir)
}

async function benchFirstEvent(): Promise<void> {
  await database.query('create table bench (n int)')
  await database.query('insert into bench values (0)')
  const query: number[] = []
  const commit: number[] = []
  const event: number[] = []
  for (let i = 0; i < SMALL_DEPLOYMENTS; i++) {
    query.push(await measureMs(() => server.request('{ __typename }')))
    commit.push(await measureMs(() => database.query('update bench set n = n + 1')))
    const repo = `small-${i}`
    const seen = viewer.events.length
    let response: Promise<unknown> = Promise.resolve()
    event.push(
      await measureMs(() => {
        response = server.request<DeployResult>(DEPLOY_MUTATION, {
          input: { org: 'bench', repo, contents: { template: { name: 'hello-world' } } },
        })
        return viewer.waitUntil(() => viewer.events.length > seen)
      }),
    )
    await response
    await viewer.waitForEnd(viewer.events[seen]!.deploymentId)
  }
  const lowerBoundMs = median(query) + median(commit)
  console.log(`\nFrom "deploy" to the first event at a viewer, medians of ${SMALL_DEPLOYMENTS}`)
  console.table({
    'empty query': { ms: median(query).toFixed(2) },
    'one synced commit': { ms: median(commit).toFixed(2) },
    'first event': {
      ms: median(event).toFixed(2),
      ratio: (median(event) / lowerBoundMs).toFixed(2),
      target: '3.00',
    },
  })
}

async function benchManyFiles(): Promise<void> {
  const rows: Record<string, object> = {}
  for (let round = 1; round <= ROUNDS; round++) {
    const files = codeLikeFiles(round)
    await loopLag()
    let longestWaitMs = 0
    const stopWatching = new AbortController()
    const watching = watchLiveness(stopWatching.signal, (ms) => {
      longestWaitMs = Math.max(longestWaitMs, ms)
    })
    const body = JSON.stringify({
      query: DEPLOY_MUTATION,
      variables: { input: { org: 'bench', repo: `many-${round}`, contents: { files } } },
    })
    const deployMs = await measureMs(async () => {
      const response = await fetch(`${server.url}/graphql`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body,
      })
      const { data } = (await response.json()) as { data: DeployResult }
      await viewer.waitForEnd(data.deploy.id)
    })
    stopWatching.abort()
    await watching
    const stallMs = await loopLag()
    const gitMs = await fastImport(files)
    rows[`round ${round}`] = {
      'deploy ms': Math.round(deployMs),
      'fast-import ms': Math.round(gitMs),
      ratio: (deployMs / gitMs).toFixed(2),
      'longest stall ms': stallMs,
      'longest wait of another request ms': Math.round(longestWaitMs),
    }
  }
  console.log(
    `\n${FILES} files, ${(FILES * FILE_BYTES) / 1e6} MB, from the request to DONE (targets: ratio 3.00, stall 150 ms)`,
  )
  console.table(rows)
}

async function watchLiveness(signal: AbortSignal, report: (ms: number) => void): Promise<void> {
  while (!signal.aborted) {
    report(await measureMs(() => fetch(`${server.url}/health/live`).then((response) => response.text())))
    await sleep(5)
  }
}

async function loopLag(): Promise<number> {
  const before = server.log.length
  process.kill(server.pid, 'SIGUSR2')
  for (;;) {
    const match = /loop-lag ([\d.]+)/.exec(server.log.slice(before))
    if (match) return Number(match[1])
    await sleep(5)
  }
}

/** Imports into a bare repository, as one commit. */
async function fastImport(files: readonly { path: string; content: string }[]): Promise<number> {
  const repository = await mkdtemp(join(dataDir, 'fast-import-'))
  await git('/', 'init', '-q', '--bare', repository)
  const blob = (content: string) => `data ${Buffer.byteLength(content)}\n${content}\n`
  const stream = [
    'commit refs/heads/main\ncommitter Bench <bench@localhost> 0 +0000\n',
    blob('Initial commit'),
    ...files.map(({ path, content }) => `M 100644 inline ${path}\n${blob(content)}`),
    '\n',
  ].join('')
  return measureMs(async () => {
    const child: ChildProcess = spawn('git', ['-C', repository, 'fast-import', '--quiet'], {
      stdio: ['pipe', 'ignore', 'inherit'],
    })
    child.stdin?.end(stream)
    await once(child, 'exit')
  })
}

/** Compresses about as well as code, and differs in each round. */
function codeLikeFiles(seed: number): { path: string; content: string }[] {
  return Array.from({ length: FILES }, (_, i) => {
    const noise = createHash('sha512').update(`${seed}/${i}`).digest('hex')
    const line = (n: number) =>
      `export const value${n} = compute('${noise.slice(n % 64, (n % 64) + 24)}', ${n})\n`
    let content = `// File ${i} of round ${seed}\n`
    for (let n = 0; content.length < FILE_BYTES; n++) content += line(n)
    return { path: `src/module-${i % 400}/file-${i}.ts`, content: content.slice(0, FILE_BYTES) }
  })
}

async function measureMs(action: () => Promise<unknown>): Promise<number> {
  const start = performance.now()
  await action()
  return performance.now() - start
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN
}
