import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import { Cluster } from './support/cluster.ts'
import { createDataFolder, type DataFolder } from './support/data-folder.ts'
import { DEPLOY_MUTATION, type DeployResult, deployInput, git } from './support/inputs.ts'
import { waitUntil } from './support/processes.ts'
import { ReconnectingViewer } from './support/reconnecting-viewer.ts'
import { RestartablePostgres } from './support/restartable-postgres.ts'
import { TestServer } from './support/test-server.ts'
import { isFinalEvent, Viewer } from './support/viewer.ts'

/** `CHAOS_SECONDS=600 npm test -- test/nodes` for ten minutes of it; by default, each thing happens once. */
const CHAOS_SECONDS = Number(process.env.CHAOS_SECONDS ?? 0)
const isLong = CHAOS_SECONDS > 0
const DEPLOYMENTS = isLong ? Math.max(300, CHAOS_SECONDS / 2) : 60
const VIEWERS_PER_NODE = isLong ? 50 : 4
const LEASE_MS = isLong ? 3_000 : 1_500
const PATIENCE_MS = 60_000

let postgres: RestartablePostgres

beforeAll(async () => {
  postgres = await RestartablePostgres.start()
})

afterAll(() => postgres.remove())

describe('three nodes on one Postgres', () => {
  let cluster: Cluster

  beforeAll(async () => {
    cluster = await Cluster.start(postgres, { env: { LEASE_MS: String(LEASE_MS), DEPLOY_CONCURRENCY: '4' } })
    await watchWriters()
  })

  afterAll(() => cluster.stop())

  test('that start at once on an empty database migrate it once', async () => {
    const versions = await postgres.query<{ version: number }>(
      'select version from schema_migrations order by 1',
    )
    expect(versions.map(({ version }) => version)).toEqual(versions.map((_, i) => i + 1))
    for (const node of cluster.nodes) expect(await readiness(node)).toBe(200)
  })

  test('tell each other’s viewers, and no safety look finds anything', async () => {
    const viewers = cluster.nodes.map((node) => new Viewer(node.socketUrl))
    await Promise.all(viewers.map((viewer) => viewer.connected()))
    for (const viewer of viewers) viewer.follow()
    const ids = await Promise.all(
      Array.from({ length: 12 }, (_, i) => cluster.deploy(keyed(), i, PATIENCE_MS)),
    )
    for (const viewer of viewers) {
      for (const id of ids) {
        const seen = sequences(await viewer.waitForEnd(id))
        // A viewer who joined late begins later; one that was queued has an event more.
        expect(seen).toEqual(seen.map((_, i) => seen[0]! + i))
        expect(seen.at(-1)).toBeGreaterThanOrEqual(5)
      }
    }
    await Promise.all(viewers.map((viewer) => viewer.close()))
    for (const node of cluster.nodes) expect(node.log).not.toContain('Poll found events')
  })

  test(
    `killed, paused, cut off, with the database restarted and frozen${isLong ? ` for ${CHAOS_SECONDS} s` : ''}: every deployment ends, every repository has one commit, every viewer sees 1, 2, 3 …`,
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
          const request = keyed()
          inputs.set(await cluster.deploy(request, i + Math.floor(Math.random() * 3), 5_000), request)
        }),
      )
      await causeTrouble(ending.signal)
      await posting
      ending.abort()

      const unfinished = () =>
        postgres.query(`select id, status, text, error from deployments where status <> 'SUCCEEDED'`)
      await waitUntil(async () => (await unfinished()).length === 0, 'every deployment succeeds', PATIENCE_MS)
      const [end] = await postgres.query<{ head: number }>('select head::int from log')
      const last = `${logId}${String(end?.head).padStart(12, '0')}`
      await waitUntil(
        () => viewers.every((viewer) => viewer.cursor === last),
        'every viewer has seen the last event',
        PATIENCE_MS,
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
        const found = (await git('-C', repository, 'rev-list', '--all')).trim().split('\n')
        expect(found).toEqual([commits.get(id)])
      }
      // Whoever wrote what happened to a deployment that was held was the one who held it.
      const writes = await postgres.query<{ writer: string; owner: string }>(
        'select distinct writer, owner from held_writes',
      )
      expect(writes.length).toBeGreaterThan(2)
      for (const { writer, owner } of writes) {
        expect(writer).toBe(cluster.nodeNamesByPid.get(Number(owner.split('/')[1])))
      }
      // Chances for a zombie there were.
      const [{ reclaims } = { reclaims: 0 }] = await postgres.query<{ reclaims: number }>(
        'select count(*)::int as reclaims from reclaims',
      )
      console.info(
        `${DEPLOYMENTS} deployments, ${viewers.length} viewers with ${viewers.reduce((sum, { connections }) => sum + connections, 0)} connections, ${end?.head} events, ${reclaims} reclaims`,
      )
    },
    (CHAOS_SECONDS + 240) * 1_000,
  )

  /** Kills and the like, one after the other; a paused node stays so while the next thing happens. */
  async function causeTrouble(signal: AbortSignal): Promise<void> {
    const deadline = performance.now() + CHAOS_SECONDS * 1_000
    const paused = new Set<number>()
    const pauses: Promise<void>[] = []
    const aNode = () => {
      const all = [0, 1, 2].filter((i) => !paused.has(i))
      return all[Math.floor(Math.random() * all.length)] ?? 0
    }
    const kinds: Record<string, () => Promise<unknown>> = {
      kill: async () => {
        const i = aNode()
        await cluster.node(i).kill()
        await sleep(Math.random() * 500)
        await cluster.restartNode(i)
      },
      pause: async () => {
        if (paused.size > 0) return
        const i = aNode()
        paused.add(i)
        cluster.node(i).pause()
        pauses.push(
          // Past its lease, and past that of whoever took over.
          sleep(LEASE_MS * 2.2).then(() => {
            cluster.node(i).resume()
            paused.delete(i)
          }),
        )
      },
      deafen: () =>
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
        const i = aNode()
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

  /** Notes who writes to a deployment that somebody holds. The node's name comes with its connections. */
  async function watchWriters(): Promise<void> {
    await postgres.query(`
      create table held_writes (writer text, owner text, epoch int);
      create table reclaims (at timestamptz default now());
      create function note_writer() returns trigger language plpgsql as $$
        begin
          if old.status = 'RUNNING' and new.sequence > old.sequence and new.epoch = old.epoch then
            insert into held_writes values (current_setting('shipcast.node', true), old.leased_by, old.epoch);
          elsif new.reclaim_count > old.reclaim_count then
            insert into reclaims default values;
          end if;
          return null;
        end
      $$;
      create trigger note_writer after update on deployments for each row execute function note_writer()`)
  }
})

describe('while the database is away', () => {
  let cluster: Cluster

  beforeAll(async () => {
    await postgres.query('create database away')
    cluster = await Cluster.start(postgres, { size: 2, database: 'away', env: { LEASE_MS: '1500' } })
  })

  afterAll(() => cluster.stop())

  test.each([
    ['stopped', () => postgres.stop(), () => postgres.startAgain()],
    ['killed', () => postgres.kill(), () => postgres.startAgain()],
    ['frozen', () => postgres.freeze(), () => postgres.thaw()],
  ])(
    '%s: the API and the health check say so, viewers keep their sockets, and all goes on afterwards',
    async (_, away, back) => {
      const viewer = new Viewer(cluster.node(0).socketUrl)
      await viewer.connected()
      viewer.follow()
      const before = await cluster.deploy(keyed(), 0, PATIENCE_MS)
      await viewer.waitForEnd(before)

      await away()
      for (const node of cluster.nodes) {
        await waitUntil(async () => (await readiness(node)) === 503, 'the node says that it is not ready')
        expect((await fetch(`${node.url}/health/live`)).status).toBe(200)
      }
      const { errors } = await cluster.node(0).request('{ deployments { edges { cursor } } }')
      expect(errors).toMatchObject([
        { message: expect.stringContaining('database cannot be reached'), extensions: { code: 'INTERNAL' } },
      ])
      await back()

      for (const node of cluster.nodes) {
        await waitUntil(async () => (await readiness(node)) === 200, 'the node is ready again', PATIENCE_MS)
      }
      const after = await cluster.deploy(keyed(), 1, PATIENCE_MS)
      expect(sequences(await viewer.waitForEnd(after))).toEqual([1, 2, 3, 4, 5])
      expect(viewer.closeCode).toBeUndefined()
      await viewer.close()
    },
  )

  test('full: what cannot be stored is refused, and what runs goes on when there is room', async () => {
    // As a server answers whose disk is full; from here it cannot be told apart.
    const onDatabase = new Viewer(cluster.node(0).socketUrl)
    await onDatabase.connected()
    onDatabase.follow()
    await inDatabase(
      'away',
      `create function no_room() returns trigger language plpgsql as $$
         begin raise exception 'could not extend file: No space left on device' using errcode = 'disk_full'; end $$;
       create trigger no_room before insert on events for each statement execute function no_room()`,
    )
    const request = keyed()
    const refused = await cluster
      .node(0)
      .request('mutation ($input: DeployInput!) { deploy(input: $input) { id } }', { input: request })
    expect(refused.errors).toMatchObject([{ message: expect.stringContaining('Try again soon') }])
    await inDatabase('away', 'drop trigger no_room on events')
    const id = await cluster.deploy(request, 0, PATIENCE_MS)
    expect(sequences(await onDatabase.waitForEnd(id))).toEqual([1, 2, 3, 4, 5])
    await onDatabase.close()
  })

  test('no log ever holds the password', () => {
    for (const node of cluster.nodes) {
      expect(node.log).toContain('is not available')
      expect(node.log).not.toContain(postgres.password)
    }
  })
})

// Tried at once, and given back: which tests there are has to be known before any hook runs.
const hasRoom = await roomOf(1).then(async (room) => {
  await room?.remove()
  return room !== undefined
})

;(hasRoom ? describe : describe.skip)(
  `while the database’s disk is full${hasRoom ? '' : ' (needs root on Linux, for a file system of its own)'}`,
  () => {
    let room: DataFolder | undefined
    let small: RestartablePostgres
    let cluster: Cluster

    beforeAll(async () => {
      room = await roomOf(160)
      small = await RestartablePostgres.start({ max_wal_size: '32MB', min_wal_size: '32MB' }, room)
      cluster = await Cluster.start(small, { size: 2, env: { LEASE_MS: '1500' } })
    })

    afterAll(async () => {
      await cluster.stop()
      await small.remove()
    })

    test('the API says so, viewers keep their sockets, and all goes on when there is room again', async () => {
      const viewers = cluster.nodes.map((node) => new Viewer(node.socketUrl))
      for (const viewer of viewers) {
        await viewer.connected()
        viewer.follow()
      }
      const before = await cluster.deploy(keyed(), 0, PATIENCE_MS)
      const ballast = join(room!.path, 'ballast')
      const fill = async () => {
        // What the server gives free in the meantime, too.
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
        PATIENCE_MS,
      )
      expect(refusal).toMatchObject({
        message: expect.stringContaining('Try again soon'),
        extensions: { code: 'INTERNAL' },
      })
      for (const node of cluster.nodes) expect((await fetch(`${node.url}/health/live`)).status).toBe(200)

      await rm(ballast)
      // A server that could not even write its log has stopped.
      if (!(await small.query('select 1').catch(() => undefined))) await small.restart()
      ids.push(await cluster.deploy(keyed(), 1, PATIENCE_MS))
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

/** A file system of so many megabytes, where it can be had. */
async function roomOf(megabytes: number): Promise<DataFolder | undefined> {
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

/** Half a megabyte that cannot be packed any smaller. */
function large(): Record<string, unknown> {
  const content = randomBytes(512 * 1024).toString('base64')
  return { ...keyed(), contents: { files: [{ path: 'noise.bin', content, encoding: 'BASE64' }] } }
}

describe('a node that cannot use its database', () => {
  let folder: DataFolder

  beforeAll(async () => {
    folder = await createDataFolder()
  })

  afterAll(() => folder.remove())

  const startOn = (url: string) =>
    TestServer.start({ dataDir: folder.path, env: { DATABASE_URL: url, LOG_LEVEL: 'debug' } })

  test('does not start on one that a newer version has migrated, and says so', async () => {
    await postgres.query('create database newer')
    await inDatabase(
      'newer',
      `create table schema_migrations (version int primary key, name text not null);
       insert into schema_migrations values (999, 'from the future')`,
    )
    await expect(startOn(postgres.url('newer'))).rejects.toThrow(
      /^The database is at schema version 999, .* a newer Shipcast has used it/m,
    )
  })

  test('tells where it looked for one, and never the password', async () => {
    const starting = startOn('postgres://someone:s3cret-pa55@127.0.0.1:1/shipcast?connect_timeout=2')
    const error = await starting.catch(String)
    expect(error).toContain('127.0.0.1:1/shipcast')
    expect(error).not.toContain('s3cret-pa55')
  })
})

/** Runs statements in another database of the test's server. */
async function inDatabase(database: string, text: string): Promise<void> {
  await postgres.query(text, undefined, database)
}

async function readiness(node: TestServer): Promise<number> {
  return (await fetch(`${node.url}/health/ready`)).status
}

function keyed(): Record<string, unknown> {
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
