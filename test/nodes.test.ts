import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import { Cluster } from './support/cluster.ts'
import { createDataFolder, type DataFolder } from './support/data-folder.ts'
import { git } from './support/github/git.ts'
import { DEPLOY_MUTATION, type DeployResult, deployInput } from './support/inputs.ts'
import { MAX_WAIT_MS, waitUntil } from './support/processes.ts'
import { ReconnectingViewer } from './support/reconnecting-viewer.ts'
import { RestartablePostgres } from './support/restartable-postgres.ts'
import { TestServer } from './support/test-server.ts'
import { isFinalEvent, Viewer } from './support/viewer.ts'

/**
 * For ten minutes of chaos: `CHAOS_SECONDS=600 npm test -- test/nodes`; by default, each fault happens once.
 */
const CHAOS_SECONDS = Number(process.env.CHAOS_SECONDS ?? 0)
const isLong = CHAOS_SECONDS > 0
const DEPLOYMENTS = isLong ? Math.max(300, CHAOS_SECONDS / 2) : 60
const VIEWERS_PER_NODE = isLong ? 50 : 4
const LEASE_MS = isLong ? 3_000 : 1_500

let postgres: RestartablePostgres

beforeAll(async () => {
  postgres = await RestartablePostgres.start()
})

afterAll(() => postgres.remove())

describe('three nodes on one Postgres', () => {
  let cluster: Cluster

  beforeAll(async () => {
    cluster = await Cluster.start(postgres, { env: { LEASE_MS: String(LEASE_MS), DEPLOY_CONCURRENCY: '4' } })
    await recordWriters()
  })

  afterAll(() => cluster.stop())

  test('that start together on an empty database migrate it once', async () => {
    const versions = await postgres.query<{ version: number }>(
      'select version from schema_migrations order by 1',
    )
    expect(versions.map(({ version }) => version)).toEqual(versions.map((_, i) => i + 1))
    for (const node of cluster.nodes) expect(await readiness(node)).toBe(200)
  })

  test("notify each other's subscribers, and no poll finds a missed notification", async () => {
    const viewers = cluster.nodes.map((node) => new Viewer(node.socketUrl))
    await Promise.all(viewers.map((viewer) => viewer.connected()))
    for (const viewer of viewers) viewer.follow()
    const ids = await Promise.all(
      Array.from({ length: 12 }, (_, i) => cluster.deploy(newInput(), i, MAX_WAIT_MS)),
    )
    for (const viewer of viewers) {
      for (const id of ids) {
        const seen = sequences(await viewer.waitForEnd(id))
        // A late subscriber starts later; a deployment that was queued has one more event.
        expect(seen).toEqual(seen.map((_, i) => seen[0]! + i))
        expect(seen.at(-1)).toBeGreaterThanOrEqual(5)
      }
    }
    await Promise.all(viewers.map((viewer) => viewer.close()))
    for (const node of cluster.nodes) expect(node.log).not.toContain('Poll found events')
  })

  test(
    `with nodes killed, paused and disconnected, and the database restarted and frozen${isLong ? ` for ${CHAOS_SECONDS} s` : ''}: every deployment ends, every repository has one commit, every subscriber receives 1, 2, 3 …`,
    async () => {
      const [{ id: logId, head = 0 } = { id: 0 }] = await postgres.query<{ id: number; head: number }>(
        'select id, head::int from log',
      )
      const start = `${logId}${String(head).padStart(12, '0')}`
      const viewers = cluster.nodes.flatMap((_, i) =>
        Array.from({ length: VIEWERS_PER_NODE }, () => new ReconnectingViewer(cluster.socketUrls(i), start)),
      )
      const ending = new AbortController()
      const inputs = new Map<string, Record<string, unknown>>()
      const posting = Promise.all(
        Array.from({ length: DEPLOYMENTS }, async (_, i) => {
          await sleep(isLong ? (i * CHAOS_SECONDS * 1_000) / DEPLOYMENTS : i * 150)
          const request = newInput()
          inputs.set(await cluster.deploy(request, i + Math.floor(Math.random() * 3), 5_000), request)
        }),
      )
      await causeFaults(ending.signal)
      await posting
      ending.abort()

      const unfinished = () =>
        postgres.query(`select id, status, text, error from deployments where status <> 'SUCCEEDED'`)
      await waitUntil(async () => (await unfinished()).length === 0, 'every deployment succeeds', MAX_WAIT_MS)
      const [end] = await postgres.query<{ head: number }>('select head::int from log')
      const last = `${logId}${String(end?.head).padStart(12, '0')}`
      await waitUntil(
        () => viewers.every((viewer) => viewer.cursor === last),
        'every viewer has seen the last event',
        MAX_WAIT_MS,
      )
      await Promise.all(viewers.map((viewer) => viewer.close()))

      for (const viewer of viewers) {
        const positions = viewer.events.map((event) => Number(event.cursor.slice(4)))
        expect(positions).toEqual(positions.map((_, i) => head + 1 + i))
        expect(positions.at(-1)).toBe(end?.head)
        const byDeployment = Map.groupBy(viewer.events, (event) => event.deploymentId)
        expect(new Set(byDeployment.keys())).toEqual(new Set(inputs.keys()))
        for (const events of byDeployment.values()) {
          expect(sequences(events)).toEqual(events.map((_, i) => i + 1))
          expect(isFinalEvent(events.at(-1))).toBe(true)
        }
      }
      const commits = new Map(
        viewers[0]!.events.map((event) => [event.deploymentId, event.deployment.commitSha]),
      )
      for (const [id, request] of inputs) {
        const repository = join(cluster.dataDir, 'forge', String(request.org), `${request.repo}.git`)
        const found = (await git('/', '-C', repository, 'rev-list', '--all')).trim().split('\n')
        expect(found).toEqual([commits.get(id)])
      }
      // Only the holder of a lease wrote to its deployment.
      const writes = await postgres.query<{ writer: string; owner: string }>(
        'select distinct writer, owner from leased_writes',
      )
      expect(writes.length).toBeGreaterThan(2)
      for (const { writer, owner } of writes) {
        expect(writer).toBe(cluster.nodeNamesByPid.get(Number(owner.split('/')[1])))
      }
      // How often a paused node could have written after another had taken over.
      const [{ reclaims } = { reclaims: 0 }] = await postgres.query<{ reclaims: number }>(
        'select count(*)::int as reclaims from reclaims',
      )
      console.info(
        `${DEPLOYMENTS} deployments, ${viewers.length} viewers with ${viewers.reduce((sum, { connections }) => sum + connections, 0)} connections, ${end?.head} events, ${reclaims} reclaims`,
      )
    },
    (CHAOS_SECONDS + 240) * 1_000,
  )

  /** One fault after another; a paused node stays paused during the next ones. */
  async function causeFaults(signal: AbortSignal): Promise<void> {
    const deadline = performance.now() + CHAOS_SECONDS * 1_000
    const paused = new Set<number>()
    const pauses: Promise<void>[] = []
    const pickNode = () => {
      const all = [0, 1, 2].filter((i) => !paused.has(i))
      return all[Math.floor(Math.random() * all.length)] ?? 0
    }
    const kinds: Record<string, () => Promise<unknown>> = {
      kill: async () => {
        const i = pickNode()
        await cluster.node(i).kill()
        await sleep(Math.random() * 500)
        await cluster.restartNode(i)
      },
      pause: async () => {
        if (paused.size > 0) return
        const i = pickNode()
        paused.add(i)
        cluster.node(i).pause()
        pauses.push(
          // Longer than its lease, and that of the node that takes over.
          sleep(LEASE_MS * 2.2).then(() => {
            cluster.node(i).resume()
            paused.delete(i)
          }),
        )
      },
      disconnect: () =>
        postgres.query(
          `select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'shipcast listen'`,
        ),
      restart: () => postgres.restart(),
      crash: async () => {
        await postgres.kill()
        await postgres.startAgain()
      },
      freeze: async () => {
        await postgres.freeze()
        await sleep(isLong ? 20_000 : 2_500)
        await postgres.thaw()
      },
      stop: async () => {
        const i = pickNode()
        await cluster.node(i).stop()
        await cluster.restartNode(i)
      },
    }
    const names = Object.keys(kinds)
    for (let i = 0; !signal.aborted && (isLong ? performance.now() < deadline : i < names.length); i++) {
      await sleep(300 + Math.random() * (isLong ? 3_000 : 500))
      const name = i < names.length ? names[i]! : names[Math.floor(Math.random() * names.length)]!
      await kinds[name]!()
    }
    await Promise.all(pauses)
  }

  /** Records which node writes to a leased deployment. The node's name is a setting of its connections. */
  async function recordWriters(): Promise<void> {
    await postgres.query(`
      create table leased_writes (writer text, owner text, epoch int);
      create table reclaims (at timestamptz default now());
      create function record_writer() returns trigger language plpgsql as $$
        begin
          if old.status = 'RUNNING' and new.sequence > old.sequence and new.epoch = old.epoch then
            insert into leased_writes values (current_setting('shipcast.node', true), old.leased_by, old.epoch);
          elsif new.reclaim_count > old.reclaim_count then
            insert into reclaims default values;
          end if;
          return null;
        end
      $$;
      create trigger record_writer after update on deployments for each row execute function record_writer()`)
  }
})

describe('while the database is unavailable', () => {
  let cluster: Cluster

  beforeAll(async () => {
    await postgres.query('create database outages')
    cluster = await Cluster.start(postgres, { size: 2, database: 'outages', env: { LEASE_MS: '1500' } })
  })

  afterAll(() => cluster.stop())

  test.each([
    ['stopped', () => postgres.stop(), () => postgres.startAgain()],
    ['killed', () => postgres.kill(), () => postgres.startAgain()],
    ['frozen', () => postgres.freeze(), () => postgres.thaw()],
  ])(
    '%s: API and health check report it, sockets stay open, and everything continues afterwards',
    async (_, cause, end) => {
      const viewer = new Viewer(cluster.node(0).socketUrl)
      await viewer.connected()
      viewer.follow()
      const before = await cluster.deploy(newInput(), 0, MAX_WAIT_MS)
      await viewer.waitForEnd(before)

      await cause()
      for (const node of cluster.nodes) {
        await waitUntil(async () => (await readiness(node)) === 503, 'the node is not ready')
        expect((await fetch(`${node.url}/health/live`)).status).toBe(200)
      }
      const { errors } = await cluster.node(0).request('{ deployments { edges { cursor } } }')
      expect(errors).toMatchObject([
        { message: expect.stringContaining('database is unavailable'), extensions: { code: 'INTERNAL' } },
      ])
      await end()

      for (const node of cluster.nodes) {
        await waitUntil(async () => (await readiness(node)) === 200, 'the node is ready again', MAX_WAIT_MS)
      }
      const after = await cluster.deploy(newInput(), 1, MAX_WAIT_MS)
      expect(sequences(await viewer.waitForEnd(after))).toEqual([1, 2, 3, 4, 5])
      expect(viewer.closeCode).toBeUndefined()
      await viewer.close()
    },
  )

  test('full: requests are refused, and deployments continue when there is space', async () => {
    // Raises the error of a server whose disk is full.
    const viewer = new Viewer(cluster.node(0).socketUrl)
    await viewer.connected()
    viewer.follow()
    await inDatabase(
      'outages',
      `create function no_space() returns trigger language plpgsql as $$
         begin raise exception 'could not extend file: No space left on device' using errcode = 'disk_full'; end $$;
       create trigger no_space before insert on events for each statement execute function no_space()`,
    )
    const request = newInput()
    const refused = await cluster
      .node(0)
      .request('mutation ($input: DeployInput!) { deploy(input: $input) { id } }', { input: request })
    expect(refused.errors).toMatchObject([{ message: expect.stringContaining('Try again soon') }])
    await inDatabase('outages', 'drop trigger no_space on events')
    const id = await cluster.deploy(request, 0, MAX_WAIT_MS)
    expect(sequences(await viewer.waitForEnd(id))).toEqual([1, 2, 3, 4, 5])
    await viewer.close()
  })

  test('no log contains the password', () => {
    for (const node of cluster.nodes) {
      expect(node.log).toContain('is not available')
      expect(node.log).not.toContain(postgres.password)
    }
  })
})

// Determined here, because tests must be defined before any hook runs.
const hasFileSystem = await createFileSystem(1).then(async (volume) => {
  await volume?.remove()
  return volume !== undefined
})

;(hasFileSystem ? describe : describe.skip)(
  `while the database's disk is full${hasFileSystem ? '' : ' (needs root on Linux, for its own file system)'}`,
  () => {
    let volume: DataFolder | undefined
    let small: RestartablePostgres
    let cluster: Cluster

    beforeAll(async () => {
      volume = await createFileSystem(160)
      small = await RestartablePostgres.start({ max_wal_size: '32MB', min_wal_size: '32MB' }, volume)
      cluster = await Cluster.start(small, { size: 2, env: { LEASE_MS: '1500' } })
    })

    afterAll(async () => {
      await cluster.stop()
      await small.remove()
    })

    test('the API reports it, sockets stay open, and everything continues when there is space again', async () => {
      const viewers = cluster.nodes.map((node) => new Viewer(node.socketUrl))
      for (const viewer of viewers) {
        await viewer.connected()
        viewer.follow()
      }
      const before = await cluster.deploy(newInput(), 0, MAX_WAIT_MS)
      const ballast = join(volume!.path, 'ballast')
      const fill = async () => {
        // Also fills what the server frees in the meantime.
        await promisify(execFile)('dd', [
          'if=/dev/zero',
          `of=${ballast}`,
          'bs=64k',
          'oflag=append',
          'conv=notrunc',
        ]).catch(() => undefined)
      }
      const ids = [before]
      let refusal: { message: string; extensions: Record<string, unknown> } | undefined
      await waitUntil(
        async () => {
          await fill()
          const { data, errors } = await cluster
            .node(ids.length)
            .request<DeployResult>(DEPLOY_MUTATION, { input: large() })
          refusal = errors?.[0]
          if (!errors) ids.push(data.deploy.id)
          return refusal !== undefined
        },
        'a deployment is refused',
        MAX_WAIT_MS,
      )
      expect(refusal).toMatchObject({
        message: expect.stringContaining('Try again soon'),
        extensions: { code: 'INTERNAL' },
      })
      for (const node of cluster.nodes) expect((await fetch(`${node.url}/health/live`)).status).toBe(200)

      await rm(ballast)
      // A server that cannot write its WAL stops.
      if (!(await small.query('select 1').catch(() => undefined))) await small.restart()
      ids.push(await cluster.deploy(newInput(), 1, MAX_WAIT_MS))
      for (const viewer of viewers) {
        for (const id of ids) {
          const events = await viewer.waitForEnd(id)
          expect(events.at(-1)?.status).toBe('SUCCEEDED')
          expect(sequences(events)).toEqual(events.map((_, i) => i + 1))
        }
        expect(viewer.closeCode).toBeUndefined()
        await viewer.close()
      }
    })
  },
)

/** A file system of this size, if the system allows it. */
async function createFileSystem(megabytes: number): Promise<DataFolder | undefined> {
  if (process.platform !== 'linux' || process.getuid?.() !== 0) return undefined
  const folder = await createDataFolder()
  const run = promisify(execFile)
  try {
    await run('mount', ['-t', 'tmpfs', '-o', `size=${megabytes}m,mode=755`, 'tmpfs', folder.path])
  } catch {
    await folder.remove()
    return undefined
  }
  return {
    path: folder.path,
    remove: async () => {
      await run('umount', [folder.path])
      await folder.remove()
    },
  }
}

/** Half a megabyte that cannot be compressed. */
function large(): Record<string, unknown> {
  const content = randomBytes(512 * 1024).toString('base64')
  return { ...newInput(), contents: { files: [{ path: 'noise.bin', content, encoding: 'BASE64' }] } }
}

describe('a node that cannot use its database', () => {
  let folder: DataFolder

  beforeAll(async () => {
    folder = await createDataFolder()
  })

  afterAll(() => folder.remove())

  const startOn = (url: string) =>
    TestServer.start({ dataDir: folder.path, env: { DATABASE_URL: url, LOG_LEVEL: 'debug' } })

  test.each([
    [
      'a newer',
      [999, 'from the future'],
      /^The database is at schema version 999, .* a newer Shipcast has used it/m,
    ],
    [
      'an unreleased',
      [1, 'deployments and their log'],
      /^An unreleased version of Shipcast created the tables/m,
    ],
  ] as const)(
    'does not start if %s version has migrated it, and reports that',
    async (_, [version, name], sentence) => {
      const database = `migrated_${version}`
      await postgres.query(`create database ${database}`)
      await inDatabase(
        database,
        `create table schema_migrations (version int primary key, name text not null);
       insert into schema_migrations values (${version}, '${name}')`,
      )
      await expect(startOn(postgres.url(database))).rejects.toThrow(sentence)
    },
  )

  test('reports its address, and never the password', async () => {
    const starting = startOn('postgres://someone:s3cret-pa55@127.0.0.1:1/shipcast?connect_timeout=2')
    const error = await starting.catch(String)
    expect(error).toContain('127.0.0.1:1/shipcast')
    expect(error).not.toContain('s3cret-pa55')
  })
})

/** Runs statements in another database of the server. */
async function inDatabase(database: string, text: string): Promise<void> {
  await postgres.query(text, undefined, database)
}

async function readiness(node: TestServer): Promise<number> {
  return (await fetch(`${node.url}/health/ready`)).status
}

function newInput(): Record<string, unknown> {
  const files = Array.from({ length: 20 }, (_, i) => ({
    path: `folder/file-${i}.txt`,
    content: `${i}\n`.repeat(200),
  }))
  return deployInput({
    org: `org-${Math.floor(Math.random() * 5)}`,
    idempotencyKey: crypto.randomUUID(),
    contents: { files },
  })
}

const sequences = (events: readonly { sequence: number }[]) => events.map(({ sequence }) => sequence)
