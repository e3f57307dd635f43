import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { afterAll, expect, test } from '@jest/globals'
import { git } from './support/github/git.ts'
import { DEPLOY_MUTATION, type DeployResult, deployInput } from './support/inputs.ts'
import { MAX_WAIT_MS, waitUntil } from './support/processes.ts'
import { TestServer } from './support/test-server.ts'
import { isFinalEvent, type ReceivedEvent, Viewer } from './support/viewer.ts'

/** For a longer run: `KILLS=100 npm test -- test/crash` */
const KILLS = Number(process.env.KILLS ?? 4)
/** Requested between two kills. */
const DEPLOYMENTS = 12

let server: TestServer | undefined

afterAll(async () => {
  await server?.kill()
  await server?.removeData()
})

test(
  `${KILLS} kills under load: every accepted deployment ends with one commit, and no event is lost or repeated`,
  async () => {
    server = await TestServer.start({ env: { LEASE_MS: '1000', DEPLOY_CONCURRENCY: '3' } })
    const seen: ReceivedEvent[] = []
    let start: string | undefined
    const accepted = new Map<string, Record<string, unknown>>()
    const unanswered: Record<string, unknown>[] = []

    for (let kill = 1; kill <= KILLS; kill++) {
      const viewer = new Viewer(server.socketUrl)
      start ??= (await viewer.connected()).cursor
      viewer.follow({ after: seen.at(-1)?.cursor ?? start })
      // Requests without a response are repeated with the same key: they must not create a second deployment.
      const requests = [...unanswered.splice(0), ...Array.from({ length: DEPLOYMENTS }, large)]
      const posted = Promise.all(requests.map((request) => post(request, accepted, unanswered)))
      // From "just started" to "all done".
      await sleep(Math.random() * 900)
      await server.kill()
      await posted
      await viewer.waitUntil(() => viewer.closeCode !== undefined)
      seen.push(...viewer.events)
      await viewer.close()
      await server.start()
    }

    const viewer = new Viewer(server.socketUrl)
    viewer.follow({ after: seen.at(-1)?.cursor ?? start ?? '' })
    await Promise.all(unanswered.splice(0).map((request) => post(request, accepted, unanswered)))
    expect(unanswered).toEqual([])
    await viewer.waitUntil(() => {
      const ended = new Set(
        [...seen, ...viewer.events].filter(isFinalEvent).map((event) => event.deploymentId),
      )
      return [...accepted.keys()].every((id) => ended.has(id))
    }, 'every deployment ends')
    seen.push(...viewer.events)
    await viewer.close()

    // Across all crashes, the subscriber received the whole log, once and in order.
    const positions = seen.map((event) => Number(event.cursor))
    expect(positions).toEqual(positions.map((_, i) => positions[0]! + i))
    const byDeployment = Map.groupBy(seen, (event) => event.deploymentId)
    expect(new Set(byDeployment.keys())).toEqual(new Set(accepted.keys()))
    for (const [id, events] of byDeployment) {
      expect(events.map(({ sequence }) => sequence)).toEqual(events.map((_, i) => i + 1))
      expect(events.at(-1)).toMatchObject({ step: 'DONE', status: 'SUCCEEDED' })
      const request = accepted.get(id)
      const repository = join(server.dataDir, 'forge', String(request?.org), `${request?.repo}.git`)
      expect(await git('/', '-C', repository, 'fsck', '--full', '--strict')).toBe('')
      const commits = (await git('/', '-C', repository, 'rev-list', '--all')).trim().split('\n')
      expect(commits).toEqual([events.at(-1)?.deployment.commitSha])
    }

    const { dataDir } = server
    await server.kill()
    await waitForProcessesToEnd(dataDir)
  },
  120_000 + KILLS * 15_000,
)

function large(): Record<string, unknown> {
  const files = Array.from({ length: 20 }, (_, i) => ({
    path: `folder/file-${i}.txt`,
    content: `${i}\n`.repeat(200),
  }))
  return deployInput({ idempotencyKey: crypto.randomUUID(), contents: { files } })
}

async function post(
  request: Record<string, unknown>,
  accepted: Map<string, Record<string, unknown>>,
  unanswered: Record<string, unknown>[],
): Promise<void> {
  try {
    const { data, errors } = await server!.request<DeployResult>(DEPLOY_MUTATION, { input: request })
    if (errors) throw new Error(JSON.stringify(errors))
    accepted.set(data.deploy.id, request)
  } catch {
    unanswered.push(request)
  }
}

/** Resolves when no process names the folder: the embedded Postgres ends with its owner. */
async function waitForProcessesToEnd(folder: string): Promise<void> {
  let running: string[] = []
  await waitUntil(
    async () => {
      const { stdout } = await promisify(execFile)('ps', ['-eo', 'args'])
      running = stdout.split('\n').filter((line) => line.includes(folder))
      return running.length === 0
    },
    () => `no process uses the folder; still running:\n${running.join('\n')}`,
    MAX_WAIT_MS,
  )
}
