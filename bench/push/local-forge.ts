import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import type { ContentFile } from '../../src/github/git/commit-pack.ts'
import { prepareContents } from '../../src/github/git/commit-pack.ts'
import { LocalForge } from '../../src/github/local/local-forge.ts'
import { fastImportStream, git, gitWithInput } from '../../test/support/github/git.ts'
import { codeFiles, SAMPLE_PLAN } from '../../test/support/github/sample-contents.ts'
import { packToDisk } from './pack-to-disk.ts'

/*
 * Prepares contents and pushes them to a new repository on a local forge, compared with `git init` +
 * `git fast-import` of the same contents. The two alternate in one run, under the same conditions; the
 * best time of each counts.
 */

const ROUNDS = Number(process.env.ROUNDS ?? 5)
const signal = new AbortController().signal
const folder = await mkdtemp(join(tmpdir(), 'shipcast-bench-'))
const forge = new LocalForge({ folder: join(folder, 'forge'), cloneUrlBase: 'http://localhost/git' })

interface ShipcastTimes {
  prepareMs: number
  pushMs: number
  stallMs: number
  packBytes: number
}

const rows: Record<string, unknown> = {}
for (const count of [5, 1000, 10_000]) {
  const files = codeFiles(count)
  const megabytes = files.reduce((sum, file) => sum + file.content.length, 0) / 1e6
  const stream = fastImportStream(files, SAMPLE_PLAN) // ready before the clock starts
  const shipcastTimes: ShipcastTimes[] = []
  const fastImportTimes: number[] = []
  for (let round = 0; round < ROUNDS; round++) {
    shipcastTimes.push(await deploy(files, `bench-${count}-${round}`))
    fastImportTimes.push(await fastImport(stream, join(folder, `${count}-${round}.git`)))
  }
  const best = shipcastTimes.reduce((a, b) => (totalMs(b) < totalMs(a) ? b : a))
  const fastImportMs = Math.min(...fastImportTimes)
  rows[`${count} files, ${megabytes.toFixed(1)} MB`] = {
    'prepare ms': roundMs(best.prepareMs),
    'push ms': roundMs(best.pushMs),
    'both ms': roundMs(totalMs(best)),
    'fast-import ms': roundMs(fastImportMs),
    ratio: Number((totalMs(best) / fastImportMs).toFixed(2)),
    // Of all rounds, including the cold first one.
    'longest stall ms': roundMs(Math.max(...shipcastTimes.map((each) => each.stallMs))),
    'pack MB': Number((best.packBytes / 1e6).toFixed(2)),
  }
}
console.table(rows)
await rm(folder, { recursive: true, force: true })

async function deploy(files: readonly ContentFile[], name: string): Promise<ShipcastTimes> {
  await forge.ensureOrganization({ login: 'bench' }, { signal })
  const stalls = monitorEventLoopDelay({ resolution: 1 })
  stalls.enable()
  const start = performance.now()
  const stored = await mkdtemp(join(folder, 'stored-'))
  using unpacked = await prepareContents(files, SAMPLE_PLAN, { signal })
  const contents = await packToDisk(unpacked, stored)
  const prepared = performance.now()
  const { commit: plannedCommit, packBytes } = contents
  const input = { owner: 'bench', name, visibility: 'PUBLIC', description: null, intentId: name } as const
  const { id } = await forge.ensureRepository(
    { ...input, knownId: null, branch: 'main', plannedCommit },
    { signal },
  )
  const push = { owner: 'bench', name, repositoryId: id, branch: 'main', expectedHead: null, contents }
  await forge.pushContents(push, { signal })
  const end = performance.now()
  stalls.disable()
  // The delay is measured between two ticks that are 1 ms apart anyway.
  return { prepareMs: prepared - start, pushMs: end - prepared, stallMs: stalls.max / 1e6 - 1, packBytes }
}

async function fastImport(stream: Buffer, repository: string): Promise<number> {
  const start = performance.now()
  await git('/', 'init', '--quiet', '--bare', '--initial-branch=main', repository)
  await gitWithInput(repository, ['fast-import', '--quiet', '--done'], stream)
  return performance.now() - start
}

function totalMs({ prepareMs, pushMs }: ShipcastTimes): number {
  return prepareMs + pushMs
}

function roundMs(ms: number): number {
  return Number(ms.toFixed(1))
}
