import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import pg from 'pg'
import { type EmbeddedPostgres, startEmbeddedPostgres } from '../src/database/embedded/embedded-postgres.ts'
import { createDataFolder, type DataFolder, removeDataFolder } from '../test/support/data-folder.ts'
import { DEPLOY_MUTATION, type DeployResult, deployInput } from '../test/support/inputs.ts'
import { TestServer } from '../test/support/test-server.ts'
import { Viewer } from '../test/support/viewer.ts'

/*
 * `npm run bench:nodes`: several nodes on one Postgres, each figure compared with a lower bound measured in
 * the same run. `npm run bench:nodes -- latency growth` runs only some benchmarks: takeover, handover,
 * latency, load, throughput, growth.
 */

const TAKEOVER_ROUNDS = 8
const HANDOVER_ROUNDS = 8
const LATENCY_SECONDS = 20
/** Events per second, and as many bare notifications: far below the maximum. */
const LATENCY_EVENTS_PER_SECOND = 25
const LATENCY_CONCURRENCY = 2
const LOAD_SECONDS = 15
const LOAD_EVENTS_PER_SECOND = 200
const EVENTS_PER_DEPLOYMENT = 5
const THROUGHPUT_SECONDS = 4
const THROUGHPUT_ROUNDS = 5
const CONCURRENCY = 50
const GROWTH_SIZES = [1_000, 1_000_000]
const GROWTH_REPEATS = 200

const benchmarks = { takeover, handover, latency, load, throughput, growth }
const chosenNames = process.argv.slice(2)

let folder: DataFolder
let postgres: EmbeddedPostgres
let nodes: TestServer[] = []

async function runChosen(): Promise<void> {
  for (const [name, benchmark] of Object.entries(benchmarks)) {
    if (chosenNames.length > 0 && !chosenNames.includes(name)) continue
    folder = await createDataFolder()
    postgres = await startEmbeddedPostgres({
      dataDir: folder.path,
      // Records the time of each commit.
      settings: { track_commit_timestamp: 'on' },
    })
    try {
      await benchmark()
    } finally {
      await Promise.all(nodes.map((node) => node.stop()))
      nodes = []
      await postgres.stop()
      await removeDataFolder(folder.path)
    }
  }
}

function databaseUrl(query = ''): string {
  const { user, password, host, port, database } = postgres.connection
  return `postgres://${user}:${password}@/${database}?host=${encodeURIComponent(host)}&port=${port}${query}`
}

async function startNodes(count: number, env: Record<string, string> = {}): Promise<void> {
  for (let i = 0; i < count; i++) {
    const options = { dataDir: folder.path, env: { DATABASE_URL: databaseUrl(), ...env } }
    nodes.push(await TestServer.start(options))
  }
}

function node(i: number): TestServer {
  const found = nodes[i]
  if (!found) throw new Error(`Node ${i} does not exist.`)
  return found
}

async function viewerAt(i: number): Promise<Viewer> {
  const viewer = new Viewer(node(i).socketUrl)
  await viewer.connected()
  viewer.follow()
  return viewer
}

async function deploy(i: number, contents = { files: files(1) }): Promise<string> {
  const { data, errors } = await node(i).request<DeployResult>(DEPLOY_MUTATION, {
    input: deployInput({ contents }),
  })
  if (errors) throw new Error(JSON.stringify(errors))
  return data.deploy.id
}

async function connect(): Promise<pg.Client> {
  const client = new pg.Client({ ...postgres.connection, ssl: false })
  // It stays open if a benchmark fails and the server is stopped.
  client.on('error', () => undefined)
  await client.connect()
  return client
}

/** From the end of a node to the next event of a deployment that it ran, at a viewer of another node. */
async function measureFailover(rounds: number, end: (node: TestServer) => Promise<void>): Promise<number[]> {
  await startNodes(3)
  const client = await connect()
  const viewer = await viewerAt(1)
  const times: number[] = []
  for (let round = 0; round < rounds; round++) {
    const large = files(6_000, round)
    const ids = await Promise.all([1, 2, 3].map(() => deploy(0, { files: large })))
    const pushing = () => ids.filter((id) => viewer.eventsOf(id).at(-1)?.step === 'CREATE_REPO')
    await viewer.waitUntil(
      () => pushing().length > 0 || ids.every((id) => viewer.eventsOf(id).at(-1)?.step === 'DONE'),
    )
    const pid = node(0).pid
    const at = performance.now()
    const ended = end(node(0))
    // The leases it held; its last events may still be in transit.
    const { rows } = await client.query<{ id: string; sequence: number }>(
      `select id, sequence from deployments where status = 'RUNNING' and leased_by like $1`,
      [`%/${pid}/%`],
    )
    await Promise.all(
      rows.map(async ({ id, sequence }) => {
        await viewer.waitUntil(() => (viewer.eventsOf(id).at(-1)?.sequence ?? 0) > sequence)
        times.push(performance.now() - at)
      }),
    )
    await ended
    for (const id of ids) await viewer.waitForEnd(id)
    await node(0).start()
  }
  await viewer.close()
  await client.end()
  return times
}

async function takeover(): Promise<void> {
  const times = await measureFailover(TAKEOVER_ROUNDS, (ending) => ending.kill())
  console.log(
    `\nFrom kill -9 to the next event, at another node (lease 6 s; targets: all < 15 s, median < 10 s)`,
  )
  console.table({ takeover: summarize(times) })
}

async function handover(): Promise<void> {
  const times = await measureFailover(HANDOVER_ROUNDS, (ending) => ending.stop())
  console.log('\nFrom SIGTERM to the next event, at another node (target: 2,000 ms)')
  console.table({ handover: summarize(times) })
}

/**
 * From the commit in one process to a viewer at a node, and bare notifications meanwhile, on an idle cluster.
 */
async function latency(): Promise<void> {
  await startNodes(3)
  const listener = await connect()
  const notifier = await connect()
  await listener.query('listen bare')
  await listener.query('listen pong')
  await notifier.query(QUEUED_DEPLOYMENTS, [LATENCY_SECONDS * LATENCY_EVENTS_PER_SECOND, 'RUNNING'])
  const echo = spawn(process.execPath, [
    fileURLToPath(new URL('echo-notify.mjs', import.meta.url)),
    JSON.stringify({ ...postgres.connection, ssl: false }),
  ])
  await once(echo.stdout, 'data')
  const arrivals = new EventArrivals(await viewerAt(1))
  const notify = async (channel: string) => {
    const received = once(listener, 'notification')
    const at = performance.now()
    const sent = notifier.query('select pg_notify($1, $2)', [channel, String(at)])
    await received
    const ms = performance.now() - at
    await sent
    return ms
  }
  const oneWay: number[] = []
  const roundTrip: number[] = []
  const appending = appendEvents(
    LATENCY_SECONDS,
    databaseUrl(),
    LATENCY_EVENTS_PER_SECOND,
    LATENCY_CONCURRENCY,
  )
  let isOver = false
  const measuring = (async () => {
    while (!isOver) {
      oneWay.push(await notify('bare'))
      await sleep(1_000 / LATENCY_EVENTS_PER_SECOND)
      roundTrip.push(await notify('ping'))
      await sleep(1_000 / LATENCY_EVENTS_PER_SECOND)
    }
  })()
  const { events } = await appending
  isOver = true
  await measuring
  await arrivals.viewer.waitUntil(() => arrivals.viewer.events.length >= events)
  const times = await arrivals.latencies(notifier)
  console.log('\nFrom the commit, its flush included, to a viewer at another node, idle')
  console.table({
    'bare NOTIFY, one way, to another session of this process': summarize(oneWay),
    'bare NOTIFY, to another process and back': summarize(roundTrip),
    'event, to a viewer': {
      ...summarize(times),
      'to one way': (median(times) / median(oneWay)).toFixed(2),
      'to round trip': (median(times) / median(roundTrip)).toFixed(2),
      target: '3.00',
    },
  })
  const echoEnded = once(echo, 'exit')
  echo.stdin.end()
  await echoEnded
  await Promise.all([arrivals.viewer.close(), listener.end(), notifier.end()])
}

/** Three nodes with a viewer each, while another process appends events at a fixed rate. */
async function load(): Promise<void> {
  await startNodes(3)
  const client = await connect()
  // Four events each, so some are left over.
  await client.query(QUEUED_DEPLOYMENTS, [LOAD_SECONDS * LOAD_EVENTS_PER_SECOND, 'RUNNING'])
  const viewers: EventArrivals[] = []
  for (const i of nodes.keys()) viewers.push(new EventArrivals(await viewerAt(i)))
  const appended = await appendEvents(LOAD_SECONDS, databaseUrl(), LOAD_EVENTS_PER_SECOND)
  for (const { viewer } of viewers) await viewer.waitUntil(() => viewer.events.length >= appended.events)
  const times: number[] = []
  for (const each of viewers) times.push(...(await each.latencies(client)))
  const rate = (appended.events / appended.seconds).toFixed(0)
  console.log(`\nThe same at ${rate} events/s, three nodes with a viewer each`)
  console.table({ 'event, to every viewer': { ...summarize(times), 'target p99': 100 } })
  await Promise.all(viewers.map(({ viewer }) => viewer.close()))
  await client.end()
}

async function appendEvents(
  seconds: number,
  url: string,
  rate = Number.POSITIVE_INFINITY,
  concurrency = CONCURRENCY,
): Promise<{ events: number; seconds: number }> {
  const program = fileURLToPath(new URL('append-events.mjs', import.meta.url))
  const args = [program, seconds, concurrency, rate].map(String)
  const { stdout } = await promisify(execFile)(process.execPath, args, {
    env: { ...process.env, DATABASE_URL: url },
  })
  return JSON.parse(stdout) as { events: number; seconds: number }
}

/** Appended events per second, compared with similar transactions; all alternate, and medians count. */
async function throughput(): Promise<void> {
  await startNodes(1)
  await Promise.all(nodes.splice(0).map((each) => each.stop()))
  const client = await connect()
  await client.query(QUEUED_DEPLOYMENTS, [THROUGHPUT_ROUNDS * THROUGHPUT_SECONDS * 2_000, 'QUEUED'])
  await client.query(`
    create table bench_rows (id int primary key, n int);
    insert into bench_rows select n, 0 from generate_series(1, 1000) n;
    create table bench_log (id bigint generated always as identity primary key, at timestamptz, body jsonb)`)
  const oneRowRates: number[] = []
  const manyRowRates: number[] = []
  const eventRates: number[] = []
  for (let round = 0; round < THROUGHPUT_ROUNDS; round++) {
    oneRowRates.push(await transactionRate('1'))
    manyRowRates.push(await transactionRate('(random() * 999 + 1)::int'))
    const { events, seconds } = await appendEvents(THROUGHPUT_SECONDS, databaseUrl())
    eventRates.push(events / seconds)
  }
  const ratios = (others: readonly number[]) => eventRates.map((rate, i) => rate / (others[i] ?? Number.NaN))
  console.log(
    `\nAppended events, compared with update + insert transactions: medians of ${THROUGHPUT_ROUNDS} rounds`,
  )
  console.table({
    'update of the same row + insert': { 'per second': Math.round(median(oneRowRates)) },
    'update of any of 1,000 rows + insert': { 'per second': Math.round(median(manyRowRates)) },
    [`events, ${CONCURRENCY} concurrent deployments`]: {
      'per second': Math.round(median(eventRates)),
      'to one row': median(ratios(oneRowRates)).toFixed(2),
      'to many rows': median(ratios(manyRowRates)).toFixed(2),
      target: '0.50',
    },
  })
  await client.end()
}

/** Transactions per second of 50 clients, as with pgbench: each updates one row and inserts one row. */
async function transactionRate(id: string): Promise<number> {
  const clients = await Promise.all(Array.from({ length: CONCURRENCY }, connect))
  const body = JSON.stringify({ text: 'x'.repeat(800) })
  let count = 0
  const startedAt = performance.now()
  await Promise.all(
    clients.map(async (client) => {
      while (performance.now() - startedAt < THROUGHPUT_SECONDS * 1_000) {
        await client.query('begin')
        await client.query({ name: 'u', text: `update bench_rows set n = n + 1 where id = ${id}` })
        await client.query({
          name: 'i',
          text: 'insert into bench_log (at, body) values (clock_timestamp(), $1)',
          values: [body],
        })
        await client.query('commit')
        count++
      }
    }),
  )
  const seconds = (performance.now() - startedAt) / 1_000
  await Promise.all(clients.map((client) => client.end()))
  return count / seconds
}

/** The same requests with few and with many events stored. */
async function growth(): Promise<void> {
  await startNodes(1)
  const client = await connect()
  const figures: Record<string, number[]> = {}
  let storedEvents = 0
  for (const size of GROWTH_SIZES) {
    await client.query(ENDED_DEPLOYMENTS, [
      storedEvents / EVENTS_PER_DEPLOYMENT + 1,
      size / EVENTS_PER_DEPLOYMENT,
    ])
    await client.query(ENDED_DEPLOYMENT_EVENTS, [storedEvents])
    await client.query(POINT_LOG_AT_LAST_EVENT)
    await client.query('vacuum analyze deployments, events')
    storedEvents = size
    // Restarts, so that the feed reads the rows inserted behind its back.
    await node(0).stop()
    await node(0).start()
    const { rows } = await client.query<{ id: string; logId: number }>(
      `select d.id, log.id as "logId" from deployments d, log order by d.id offset 100 limit 1`,
    )
    const [{ id, logId } = { id: '', logId: 0 }] = rows
    const resumeAt = `${logId}${String(storedEvents - 50).padStart(12, '0')}`
    const requests: Record<string, () => Promise<unknown>> = {
      'newest 20 deployments': () =>
        node(0).request('{ deployments(first: 20) { edges { node { id org repo status text } } } }'),
      'events of one deployment': () =>
        node(0).request('query ($id: ID!) { deployment(id: $id) { events { cursor text } } }', { id }),
      'resume 50 events back': async () => {
        const viewer = new Viewer(node(0).socketUrl)
        viewer.follow({ after: resumeAt })
        await viewer.waitUntil(() => viewer.events.length === 50)
        await viewer.close()
      },
    }
    for (const [name, send] of Object.entries(requests)) {
      const times: number[] = []
      for (let i = 0; i < GROWTH_REPEATS; i++) {
        const at = performance.now()
        await send()
        times.push(performance.now() - at)
      }
      figures[name] = [...(figures[name] ?? []), median(times.slice(GROWTH_REPEATS / 4))]
    }
  }
  console.log(
    `\nWith ${GROWTH_SIZES.join(' and ')} events stored, medians over HTTP and the socket (target: 1.5)`,
  )
  console.table(
    Object.fromEntries(
      Object.entries(figures).map(([name, [few = Number.NaN, many = Number.NaN]]) => [
        name,
        { 'few ms': few.toFixed(2), 'many ms': many.toFixed(2), ratio: (many / few).toFixed(2) },
      ]),
    ),
  )
  await client.end()
}

/** When each event arrived at a viewer. */
class EventArrivals {
  readonly viewer: Viewer
  private readonly arrivalTimes = new Map<string, number>()

  constructor(viewer: Viewer) {
    this.viewer = viewer
    const { events } = viewer
    const push = events.push.bind(events)
    events.push = (...added) => {
      for (const event of added)
        this.arrivalTimes.set(event.cursor, performance.timeOrigin + performance.now())
      return push(...added)
    }
  }

  /** Milliseconds from the commit of an event, before it is flushed, to its arrival. */
  async latencies(client: pg.Client): Promise<number[]> {
    const { rows } = await client.query<{ position: string; ms: number }>(
      'select position, (extract(epoch from pg_xact_commit_timestamp(xmin)) * 1000)::float8 as ms from events',
    )
    const committed = new Map(rows.map((row) => [Number(row.position), row]))
    return [...this.arrivalTimes].flatMap(([cursor, arrivedAt]) => {
      const row = committed.get(Number(cursor.slice(4)))
      return row ? [arrivedAt - row.ms] : []
    })
  }
}

const DEPLOYMENT_COLUMNS = `id, org, repo, visibility, branch, step, status, text, sequence, attempt, file_count, size_bytes,
  created_at, updated_at, input_digest, planned_commit, planned_tree, object_count, pack_bytes, run_at, queue_rank`

/** $2 is QUEUED, or RUNNING, which leases them to "bench". */
const QUEUED_DEPLOYMENTS = `
  insert into deployments (${DEPLOYMENT_COLUMNS}, leased_by, lease_expires_at, epoch)
  select gen_random_uuid(), 'org-' || n % 20, 'repo-' || n, 'PUBLIC', 'main', 'DEPLOY', $2, '', 1, 1, 1, 100,
    now(), now(), '', repeat('0', 40), repeat('0', 40), 3, 300, now(), n / 20,
    case when $2 = 'RUNNING' then 'bench' end, case when $2 = 'RUNNING' then now() + interval '1 day' end, 1
  from generate_series(1, $1::int) n`

/** With ids in ascending order, like UUIDs of version 7. */
const ENDED_DEPLOYMENTS = `
  insert into deployments (${DEPLOYMENT_COLUMNS}, finished_at)
  select lpad(to_hex(n), 32, '0')::uuid, 'org-' || n % 500, 'repo-' || n, 'PUBLIC', 'main', 'DONE', 'SUCCEEDED', 'Done!',
    ${EVENTS_PER_DEPLOYMENT}, 1, 1, 100, now(), now(), '', repeat('0', 40), repeat('0', 40), 3, 300, now(), 0, now()
  from generate_series($1::int, $2::int) n`

const ENDED_DEPLOYMENT_EVENTS = `
  insert into events (position, deployment_id, sequence, at, deployment, event_id, previous_event_id)
  select e.position, e.id, e.sequence, now(), e.deployment, e.position, e.position - 1
  from (
    select row_number() over (order by d.id, s) + $1::bigint as position, d.id, s as sequence,
      deployment_snapshot(d) as deployment
    from deployments d, generate_series(1, ${EVENTS_PER_DEPLOYMENT}) s
    where not exists (select from events where deployment_id = d.id)
  ) e`

/** As `append_event` leaves it: a feed whose head is not in the log would consider the log replaced. */
const POINT_LOG_AT_LAST_EVENT = `
  update log set (head, event_id, previous_event_id) = (
    select position, event_id, previous_event_id from events order by position desc limit 1
  )`

function files(count: number, seed = 0): { path: string; content: string }[] {
  return Array.from({ length: count }, (_, i) => ({
    path: `folder-${i % 50}/file-${i}.txt`,
    content: `${seed}/${i}\n`.repeat(20),
  }))
}

function summarize(times: readonly number[]): Record<string, string | number> {
  const sorted = times.toSorted((a, b) => a - b)
  const at = (share: number) =>
    (sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN).toFixed(2)
  return { n: sorted.length, 'median ms': at(0.5), 'p99 ms': at(0.99), 'max ms': at(1) }
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN
}

await runChosen()
