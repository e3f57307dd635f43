import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { fileURLToPath } from 'node:url'
import { startEmbeddedPostgres } from '../../src/database/embedded/embedded-postgres.ts'
import { createDataFolder } from '../../test/support/data-folder.ts'
import { removeFolder, temporaryFolder } from '../../test/support/github/git.ts'
import { GitHttpBackend } from '../../test/support/github/git-http-backend.ts'
import type { PushReport, PushTask } from './github-contender.ts'

/*
 * Pushes the same contents to the same `git http-backend`: with Shipcast's client, isomorphic-git, and the
 * git command line (fast-import + push). Each push runs in a separate process, so that its memory can be
 * measured. The contenders alternate in one run, under the same conditions. Reports the best times, but the
 * longest stall and the peak memory.
 *
 * "pack" is the work of accepting a deployment: packing the contents and writing the pack to the database,
 * from which it is pushed. "MB added" is memory beyond the contents, which stay loaded; for the push, beyond
 * the memory at its start. It does not include the processes of git and Postgres.
 *
 *   ROUNDS=1 node bench/push/github.ts
 */

const ROUNDS = Number(process.env.ROUNDS ?? 3)
const CONTENTS: [name: string, task: Pick<PushTask, 'files' | 'bytesPerFile' | 'isRandom'>][] = [
  ['1,000 files', { files: 1_000, bytesPerFile: 2_000, isRandom: false }],
  ['10,000 files', { files: 10_000, bytesPerFile: 2_000, isRandom: false }],
  ['one 50 MB file', { files: 1, bytesPerFile: 50_000_000, isRandom: true }],
]
const CONTENDERS = ['shipcast', 'git', 'isomorphic-git'] as const
const CONTENDER = fileURLToPath(new URL('./github-contender.ts', import.meta.url))

const backend = new GitHttpBackend(await temporaryFolder())
const { path: dataDir, remove: removeData } = await createDataFolder()
const postgres = await startEmbeddedPostgres({ dataDir })
const server = createServer((request, response) => {
  backend.handle(request, response).catch(() => response.destroy())
})
server.listen(0, '127.0.0.1')
await once(server, 'listening')
const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`

for (const [name, contents] of CONTENTS) {
  const reports = new Map<string, PushReport[]>()
  for (let round = 0; round < ROUNDS; round++) {
    for (const contender of CONTENDERS) {
      const repo = `${contender}-${contents.files}-${round}`
      await backend.create('bench', repo)
      const report = await push({
        ...contents,
        contender,
        url: `${url}/bench/${repo}.git`,
        origin: url,
        repo,
        postgres: postgres.connection,
      })
      reports.set(contender, [...(reports.get(contender) ?? []), report])
      await backend.remove('bench', repo)
    }
  }
  const best = (contender: string, field: keyof PushReport) =>
    Math.min(...(reports.get(contender) ?? []).map((each) => Number(each[field])))
  const worst = (contender: string, field: keyof PushReport) =>
    Math.max(...(reports.get(contender) ?? []).map((each) => Number(each[field])))
  console.log(`\n${name}, best of ${ROUNDS}`)
  console.table(
    Object.fromEntries(
      CONTENDERS.map((contender) => [
        contender,
        {
          'pack ms': Math.round(best(contender, 'prepareMs')),
          'push ms': Math.round(best(contender, 'pushMs')),
          'both ms': Math.round(best(contender, 'totalMs')),
          '× Shipcast': Number((best(contender, 'totalMs') / best('shipcast', 'totalMs')).toFixed(2)),
          'CPU ms': Math.round(best(contender, 'cpuMs')),
          'MB added, pack': Math.round(worst(contender, 'packMegabytes')),
          'MB added, push': Math.round(worst(contender, 'pushMegabytes')),
          'MB added, both': Math.round(worst(contender, 'bothMegabytes')),
          'longest stall ms': Math.round(worst(contender, 'stallMs')),
          commits: new Set((reports.get(contender) ?? []).map((each) => each.commit)).size,
        },
      ]),
    ),
  )
  const ids = new Set([...reports.values()].flat().map((each) => each.commit))
  console.log(
    ids.size === 1 ? 'All contenders made the same commit.' : `Different commits: ${[...ids].join(', ')}`,
  )
}
server.closeAllConnections()
server.close()
await postgres.stop()
await removeData()
await removeFolder(backend.folder)

async function push(task: PushTask): Promise<PushReport> {
  const child: ChildProcess = fork(CONTENDER, [], {
    execArgv: [...process.execArgv, '--expose-gc'],
  })
  child.send(task)
  const [report] = await Promise.race([
    once(child, 'message'),
    once(child, 'exit').then(([code]) => Promise.reject(new Error(`${task.contender} ended with ${code}.`))),
  ])
  child.disconnect()
  return report
}
