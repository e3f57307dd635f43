import { type Arrival, type Sample, SHOWINGS, type Showing } from './fan-out.ts'
import type { Herd } from './herd.ts'
import { SERVERS, type ServerName } from './options.ts'
import type { Results } from './results.ts'
import type { SlowViewer } from './slow-viewer.ts'

type Row = Record<string, string>

const NAMES = Object.keys(SERVERS) as ServerName[]
const MEBIBYTE = 1024 * 1024

/** Everything as Markdown, which is also read well in a terminal. */
export function report(results: Results): string {
  const { machine, slow, herd, failures } = results
  return [
    '# The fan-out, measured',
    `Made by \`npm run bench:fanout\`: medians of as many rounds as the first table of each number of viewers says, the servers one after the other in each, in another order each time. CPU is user and system time of the server's process, from the operating system. Latency runs from handing an event to the server (for Shipcast: after its commit) until the viewer's process has read it. Shipcast's figures contain appending each event to its log in Postgres, whose size is seen where there are no viewers; Postgres's own CPU time is not in them. Every delivery is counted and its order checked; a table says where one was missing.`,
    Object.entries(machine)
      .map(([name, value]) => `- ${name}: ${value}`)
      .join('\n'),
    '## The bars',
    table(bars(results)),
    ...viewerCounts(results).flatMap((viewers) => forViewers(results, viewers)),
    ...(slow ? ['## One viewer that stops reading', table(slowRows(slow))] : []),
    ...(herd ? ['## All viewers cut off at once', table(herdRows(herd))] : []),
    ...(failures.length > 0 ? ['## What failed', failures.map((failure) => `- ${failure}`).join('\n')] : []),
    '',
  ].join('\n\n')
}

function forViewers({ samples, arrivals }: Results, viewers: number): string[] {
  const here = samples.filter((sample) => sample.viewers === viewers)
  const arrived = arrivals.filter((arrival) => arrival.viewers === viewers)
  return [
    `## ${viewers.toLocaleString('en')} viewers`,
    '### Connecting, and being there',
    table(arrivalRows(arrived, viewers)),
    ...(Object.keys(SHOWINGS) as Showing[]).flatMap((showing) => {
      const shown = here.filter((sample) => sample.showing === showing)
      const [first] = shown
      if (!first) return []
      return [`### ${first.events} events: ${SHOWINGS[showing]}`, table(sampleRows(shown))]
    }),
  ]
}

function arrivalRows(arrivals: readonly Arrival[], viewers: number): Row[] {
  const rows = perServer(arrivals, (own) => ({
    rounds: own.length,
    cpu: middle(own, ({ cpuPerConnect }) => cpuPerConnect),
    event: middle(own, ({ cpuPerEvent }) => cpuPerEvent),
    rss: middle(own, ({ rssPerViewer }) => rssPerViewer),
    used: middle(own, ({ usedPerViewer }) => usedPerViewer),
  }))
  const floor = rows.get('ws')
  // Below that, what the process had free already is larger than what is measured.
  const tellsMemory = viewers >= 1000
  return [...rows].map(([name, { rounds, cpu, event, rss, used }]) => ({
    server: SERVERS[name],
    rounds: String(rounds),
    'CPU µs per connect and subscribe': cpu.toFixed(0),
    '× ws': ratio(cpu, floor?.cpu),
    'CPU µs per event without viewers': event.toFixed(0),
    ...(tellsMemory && {
      'KiB resident per viewer': (rss / 1024).toFixed(1),
      '× ws ': ratio(rss, floor?.rss),
      'KiB of heap and buffers per viewer': (used / 1024).toFixed(1),
      '× ws  ': ratio(used, floor?.used),
    }),
  }))
}

function sampleRows(samples: readonly Sample[]): Row[] {
  const rows = perServer(samples, (own) => own)
  const cpuOf = (name: ServerName) => middle(rows.get(name) ?? [], ({ cpuPerMessage }) => cpuPerMessage)
  return [...rows].map(([name, own]) => ({
    server: SERVERS[name],
    'CPU µs per message': cpuOf(name).toFixed(2),
    '× ws': ratio(cpuOf(name), cpuOf('ws')),
    '× NestJS': ratio(cpuOf(name), cpuOf('nestjs')),
    'last viewer p50 ms': middle(own, ({ lastP50 }) => lastP50).toFixed(1),
    'last viewer p99 ms': middle(own, ({ lastP99 }) => lastP99).toFixed(1),
    'any viewer p50 ms': middle(own, ({ anyP50 }) => anyP50).toFixed(1),
    'any viewer p99 ms': middle(own, ({ anyP99 }) => anyP99).toFixed(1),
    'bytes per message': middle(own, ({ bytesPerMessage }) => bytesPerMessage).toFixed(0),
    delivered: own.find(({ fault }) => fault)?.fault ?? 'all, once',
  }))
}

function slowRows(slow: SlowViewer): Row[] {
  const row = (figure: string, value: string, bar = '') => ({ figure, measured: value, bar })
  return [
    row('viewers', String(slow.viewers)),
    row(
      'events a second, wanted and reached',
      `${slow.eventsPerSecond}, ${slow.reachedPerSecond.toFixed(0)}`,
    ),
    row('memory added (heap and buffers)', `${(slow.usedAdded / MEBIBYTE).toFixed(2)} MiB`, '≤ 2 MiB'),
    row('memory grown before, when everybody read', `${(slow.usedGrownBefore / MEBIBYTE).toFixed(2)} MiB`),
    row('memory added (resident)', `${(slow.rssAdded / MEBIBYTE).toFixed(2)} MiB`),
    row('p99 of the others, before and meanwhile', between(slow.anyP99Before, slow.anyP99During), '≤ 1.20 ×'),
    row('p99 to the last of them, before and meanwhile', between(slow.lastP99Before, slow.lastP99During)),
    row('events that it did not read in time', String(slow.missedEvents)),
    row('caught up after', `${slow.caughtUpMs.toFixed(0)} ms; closed ${slow.closes}`),
    row('every event once', slow.faults || 'yes', 'yes'),
  ]
}

function herdRows(herd: Herd): Row[] {
  const row = (figure: string, value: string, bar = '') => ({ figure, measured: value, bar })
  return [
    row('viewers', String(herd.viewers)),
    row('events that they had missed or that came meanwhile', String(herd.events)),
    row('all caught up after', `${herd.caughtUpMs.toFixed(0)} ms`, '≤ 10,000 ms'),
    row('statements to the database', String(herd.statements), '≤ 20'),
    row('of them reading events', String(herd.eventReads)),
    row('no gap, nothing twice', herd.fault ?? 'yes', 'yes'),
  ]
}

function bars({ samples, arrivals, slow, herd }: Results): Row[] {
  const cpu = (name: ServerName, viewers: number, showing: Showing) =>
    middle(
      samples.filter((s) => s.server === name && s.viewers === viewers && s.showing === showing),
      ({ cpuPerMessage }) => cpuPerMessage,
    )
  const cpuBar = (viewers: number, showing: Showing, against: ServerName, bar: number) =>
    judged(
      `CPU per message, ${viewers} viewers, ${SHOWINGS[showing]}, against ${SERVERS[against]}`,
      cpu('shipcast', viewers, showing) / cpu(against, viewers, showing),
      bar,
    )
  const arrival = (name: ServerName, viewers: number, of: (arrival: Arrival) => number) =>
    middle(
      arrivals.filter((a) => a.server === name && a.viewers === viewers),
      of,
    )
  const arrivalBar = (figure: string, viewers: number, of: (arrival: Arrival) => number, bar: number) =>
    judged(figure, arrival('shipcast', viewers, of) / arrival('ws', viewers, of), bar)
  const steadyP99 = (name: ServerName) =>
    middle(
      samples.filter((s) => s.server === name && s.viewers === 5000 && s.showing === 'steady'),
      ({ lastP99 }) => lastP99,
    )
  return [
    cpuBar(1000, 'spaced', 'ws', 1.1),
    cpuBar(1000, 'spaced', 'nestjs', 0.45),
    cpuBar(1000, 'burst', 'ws', 0.3),
    cpuBar(1000, 'burst', 'nestjs', 0.1),
    cpuBar(5000, 'burst', 'ws', 0.3),
    cpuBar(5000, 'burst', 'nestjs', 0.1),
    cpuBar(1000, 'spaced, 100 queries', 'nestjs', 1),
    cpuBar(1000, 'burst, 100 queries', 'nestjs', 1),
    arrivalBar('CPU to connect and subscribe, 1000 viewers, against ws', 1000, (a) => a.cpuPerConnect, 1.5),
    arrivalBar('memory per idle viewer (resident), 5000 viewers, against ws', 5000, (a) => a.rssPerViewer, 2),
    arrivalBar(
      'memory per idle viewer (heap and buffers), 5000 viewers, against ws',
      5000,
      (a) => a.usedPerViewer,
      2,
    ),
    judged(
      'p99 to the last viewer, 5000 viewers, 10 events a second, against ws',
      steadyP99('shipcast') / steadyP99('ws'),
      1.3,
    ),
    executionsBar(samples),
    ...(slow
      ? [
          judged('a viewer that stops reading: MiB added', slow.usedAdded / MEBIBYTE, 2),
          judged(
            'a viewer that stops reading: p99 of the others, against before',
            slow.anyP99During / slow.anyP99Before,
            1.2,
          ),
        ]
      : []),
    ...(herd
      ? [
          judged('viewers cut off at once: seconds until all have caught up', herd.caughtUpMs / 1000, 10),
          judged('viewers cut off at once: statements to the database', herd.statements, 20),
        ]
      : []),
  ].filter((row) => row !== undefined)
}

function executionsBar(samples: readonly Sample[]): Row | undefined {
  const counted = samples.map(({ executions }) => executions).filter((count) => count !== undefined)
  if (counted.length === 0) return undefined
  const [least, most] = [Math.min(...counted), Math.max(...counted)]
  return {
    figure: 'executions and encodings per event and distinct query, least and most',
    measured: `${least.toFixed(2)}, ${most.toFixed(2)}`,
    bar: 'exactly 1',
    kept: least === 1 && most === 1 ? 'yes' : '**no**',
  }
}

/** Nothing where it was not measured. */
function judged(figure: string, measured: number, bar: number): Row | undefined {
  if (!Number.isFinite(measured)) return undefined
  return {
    figure,
    measured: measured.toFixed(2),
    bar: `≤ ${bar.toFixed(2)}`,
    kept: measured <= bar ? 'yes' : '**no**',
  }
}

function viewerCounts({ arrivals }: Results): number[] {
  return [...new Set(arrivals.map(({ viewers }) => viewers))].sort((a, b) => a - b)
}

function perServer<Item extends { server: ServerName }, Result>(
  items: readonly Item[],
  sum: (own: Item[]) => Result,
): Map<ServerName, Result> {
  const own = (name: ServerName) => items.filter(({ server }) => server === name)
  return new Map(NAMES.filter((name) => own(name).length > 0).map((name) => [name, sum(own(name))]))
}

function middle<Item>(items: readonly Item[], of: (item: Item) => number): number {
  const sorted = items.map(of).sort((a, b) => a - b)
  const half = sorted.length >> 1
  return sorted.length % 2 === 1 ? sorted[half]! : (sorted[half - 1]! + sorted[half]!) / 2
}

function ratio(value: number, against: number | undefined): string {
  return against ? (value / against).toFixed(2) : ''
}

function between(before: number, during: number): string {
  return `${before.toFixed(1)} ms, ${during.toFixed(1)} ms (${(during / before).toFixed(2)} ×)`
}

function table(rows: readonly Row[]): string {
  const columns = Object.keys(rows[0] ?? {})
  if (columns.length === 0) return 'Not measured.'
  const width = columns.map((column) =>
    Math.max(column.length, 3, ...rows.map((row) => row[column]?.length ?? 0)),
  )
  const line = (cells: readonly string[]) =>
    `| ${cells.map((cell, i) => cell.padEnd(width[i]!)).join(' | ')} |`
  return [
    line(columns.map((column) => column.trim())),
    `|${width.map((each) => '-'.repeat(each + 2)).join('|')}|`,
    ...rows.map((row) => line(columns.map((column) => row[column] ?? ''))),
  ].join('\n')
}
