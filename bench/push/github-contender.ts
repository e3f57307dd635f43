import { randomFillSync } from 'node:crypto'
import fs, { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { setTimeout as sleep } from 'node:timers/promises'
import isomorphicGit from 'isomorphic-git'
import isomorphicHttp from 'isomorphic-git/http/node'
import { Database } from '../../src/database/database.ts'
import type { EmbeddedConnection } from '../../src/database/embedded/embedded-postgres.ts'
import { insertContents, storedContents } from '../../src/deployments/contents/stored-contents.ts'
import { type ContentFile, prepareContents } from '../../src/github/git/commit-pack.ts'
import { TokenCredential } from '../../src/github/rest/credential.ts'
import { endpointsOf } from '../../src/github/rest/endpoints.ts'
import { GitRemotes } from '../../src/github/rest/git-remote.ts'
import { GitHubThrottle } from '../../src/github/rest/github-throttle.ts'
import { HttpClient } from '../../src/github/rest/http-client.ts'
import {
  fastImportStream,
  git,
  gitWithInput,
  removeFolder,
  temporaryFolder,
} from '../../test/support/github/git.ts'
import { MemoryRateLimitStore } from '../../test/support/github/memory-rate-limit-store.ts'
import { codeFiles, SAMPLE_PLAN } from '../../test/support/github/sample-contents.ts'
import { urlOf } from '../../test/support/test-database.ts'

/* Pushes once, when its parent process sends a task, and reports times and memory. */

export interface PushTask {
  contender: 'shipcast' | 'git' | 'isomorphic-git'
  files: number
  bytesPerFile: number
  isRandom: boolean
  url: string
  origin: string
  repo: string
  postgres: EmbeddedConnection
}

export interface PushReport {
  prepareMs: number
  pushMs: number
  totalMs: number
  /** User and system, of this process and, for git, of its children. */
  cpuMs: number
  /** Peak memory while packing and storing, beyond the memory with the contents loaded. */
  packMegabytes: number
  /** Peak memory during the push, beyond the memory at its start. */
  pushMegabytes: number
  /** Peak memory of both, beyond the memory with the contents loaded; includes garbage of the packing. */
  bothMegabytes: number
  stallMs: number
  commit: string
}

const signal = new AbortController().signal

process.once('message', async (task: PushTask) => {
  process.send?.(await run(task))
})

async function run(task: PushTask): Promise<PushReport> {
  const files = task.isRandom
    ? [{ path: 'big.bin', content: randomFillSync(Buffer.alloc(task.bytesPerFile)), executable: false }]
    : codeFiles(task.files, task.bytesPerFile)
  // All contenders push the same bytes: the random ones come from a fixed seed.
  if (task.isRandom && files[0]) fillPseudorandom(files[0].content)
  const stream = task.contender === 'git' ? fastImportStream(files, SAMPLE_PLAN) : undefined
  const database = await openStore(task.postgres)
  globalThis.gc?.()
  await sleep(100)
  const before = memory()
  const cpuBefore = cpu()
  const stalls = monitorEventLoopDelay({ resolution: 1 })
  stalls.enable()
  resetPeak()
  const start = performance.now()
  const { prepared, commit, packPeak, beforePush } = await CONTENDERS[task.contender](
    task,
    files,
    stream,
    database,
  )
  const end = performance.now()
  stalls.disable()
  const pushPeak = peakMemory()
  await database.close()
  return {
    prepareMs: prepared - start,
    pushMs: end - prepared,
    totalMs: end - start,
    cpuMs: cpu() - cpuBefore,
    packMegabytes: (packPeak - before) / 1e6,
    pushMegabytes: (pushPeak - beforePush) / 1e6,
    bothMegabytes: (Math.max(packPeak, pushPeak) - before) / 1e6,
    stallMs: stalls.max / 1e6 - 1,
    commit,
  }
}

type Contender = (
  task: PushTask,
  files: ContentFile[],
  stream: Buffer | undefined,
  database: Database,
) => Promise<{ prepared: number; commit: string; packPeak: number; beforePush: number }>

const CONTENDERS: Record<PushTask['contender'], Contender> = {
  shipcast: pushWithShipcast,
  git: pushWithGit,
  'isomorphic-git': pushWithIsomorphicGit,
}

async function pushWithShipcast(
  { url, origin, repo }: PushTask,
  files: ContentFile[],
  _stream: Buffer | undefined,
  database: Database,
) {
  const id = crypto.randomUUID()
  using unpacked = await prepareContents(files, SAMPLE_PLAN, { signal })
  const { commit, tree, objectCount } = unpacked
  const packBytes = await database.transaction((tx) => insertContents(tx, id, unpacked.pack()))
  const contents = storedContents(database, {
    id,
    plannedCommit: commit,
    plannedTree: tree,
    objectCount,
    packBytes,
  })
  const prepared = performance.now()
  const packPeak = peakMemory()
  const beforePush = memory()
  resetPeak()
  const endpoints = endpointsOf(origin)
  const httpClient = new HttpClient()
  const credential = new TokenCredential('benchbench', origin)
  const throttle = new GitHubThrottle({
    credentialId: 'bench',
    rateLimitStore: new MemoryRateLimitStore(),
    writeSpacingMs: 0,
    maxCreationsPerHour: null,
  })
  const remotes = new GitRemotes({
    endpoints,
    httpClient,
    throttle,
    credential,
    callTimeoutMs: 60_000,
  })
  const remote = { owner: 'bench', fullName: `bench/${repo}`, url }
  const advertisement = await remotes.fetchAdvertisement(remote, 'git-receive-pack', signal)
  const update = { ref: 'refs/heads/main', from: null, to: contents.commit }
  const report = await remotes.push(remote, update, contents, advertisement, { signal })
  if (report.ref !== 'ok') throw new Error(JSON.stringify(report))
  await httpClient.close()
  return { prepared, commit: contents.commit, packPeak, beforePush }
}

/** Creates only the table for contents, without its foreign key. */
async function openStore(connection: EmbeddedConnection): Promise<Database> {
  const store = await Database.open({ url: urlOf(connection), dataDir: '' })
  await store.query(`
    create table if not exists deployment_contents (
      deployment_id uuid, kind text, part int, bytes bytea, primary key (deployment_id, kind, part)
    );
    alter table deployment_contents alter column bytes set storage external`)
  return store
}

/** `fast-import` into a new bare repository, then `push`: the fastest method that git offers. */
async function pushWithGit({ url }: PushTask, _files: ContentFile[], stream: Buffer | undefined) {
  const folder = await temporaryFolder()
  await git('/', 'init', '--quiet', '--bare', '--initial-branch=main', folder)
  await gitWithInput(folder, ['fast-import', '--quiet', '--done'], stream ?? Buffer.alloc(0))
  const prepared = performance.now()
  const packPeak = peakMemory()
  const beforePush = memory()
  resetPeak()
  await git(folder, 'push', '--quiet', url, 'main')
  const commit = (await git(folder, 'rev-parse', 'main')).trim()
  await removeFolder(folder)
  return { prepared, commit, packPeak, beforePush }
}

/** As in its documentation, on disk, with its fastest method to make a commit: blobs, trees, commit. */
async function pushWithIsomorphicGit({ url }: PushTask, files: ContentFile[]) {
  const dir = await temporaryFolder()
  await isomorphicGit.init({ fs, dir, defaultBranch: 'main' })
  type Folder = Map<string, { oid: string; mode: string } | Folder>
  const root: Folder = new Map()
  for (const { path, content, executable } of files) {
    const segments = path.split('/')
    const name = segments.pop() ?? ''
    let folder = root
    for (const segment of segments) {
      const next = folder.get(segment)
      const child: Folder = next instanceof Map ? next : new Map()
      folder.set(segment, child)
      folder = child
    }
    folder.set(name, {
      oid: await isomorphicGit.writeBlob({ fs, dir, blob: content }),
      mode: executable ? '100755' : '100644',
    })
  }
  const writeFolder = async (folder: Folder): Promise<string> => {
    const tree = []
    for (const [path, item] of folder) {
      tree.push(
        item instanceof Map
          ? { path, mode: '040000', oid: await writeFolder(item), type: 'tree' as const }
          : { path, mode: item.mode, oid: item.oid, type: 'blob' as const },
      )
    }
    return isomorphicGit.writeTree({ fs, dir, tree })
  }
  const person = { ...SAMPLE_PLAN.author, timestamp: SAMPLE_PLAN.unixSeconds, timezoneOffset: 0 }
  const commit = await isomorphicGit.commit({
    fs,
    dir,
    message: SAMPLE_PLAN.message,
    author: person,
    committer: person,
    tree: await writeFolder(root),
    ref: 'refs/heads/main',
  })
  const prepared = performance.now()
  const packPeak = peakMemory()
  const beforePush = memory()
  resetPeak()
  const { ok, refs } = await isomorphicGit.push({
    fs,
    http: isomorphicHttp,
    dir,
    url,
    ref: 'main',
    remoteRef: 'refs/heads/main',
  })
  if (!ok) throw new Error(JSON.stringify(refs))
  await removeFolder(dir)
  return { prepared, commit, packPeak, beforePush }
}

/**
 * Resets what `peakMemory` returns (proc(5), clear_refs). Only on Linux; elsewhere the
 * peak is that of the process.
 */
function resetPeak(): void {
  if (process.platform === 'linux') writeFileSync('/proc/self/clear_refs', '5')
}

/** Peak resident memory, as recorded by the kernel. */
function peakMemory(): number {
  if (process.platform !== 'linux') return process.resourceUsage().maxRSS * 1024
  return Number(/VmHWM:\s+(\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))?.[1]) * 1024
}

function memory(): number {
  return process.memoryUsage.rss()
}

/** User and system time of this process and its ended children, in milliseconds (proc(5)). */
function cpu(): number {
  try {
    const fields =
      readFileSync(join('/proc', String(process.pid), 'stat'), 'utf8')
        .split(') ')[1]
        ?.split(' ') ?? []
    return fields.slice(11, 15).reduce((sum, ticks) => sum + Number(ticks) * 10, 0)
  } catch {
    const { user, system } = process.cpuUsage()
    return (user + system) / 1_000
  }
}

function fillPseudorandom(bytes: Uint8Array): void {
  let state = 88_172_645
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length >> 2)
  for (let i = 0; i < words.length; i++) {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    words[i] = state
  }
}
