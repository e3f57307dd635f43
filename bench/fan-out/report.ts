import type { HerdResult } from './herd.ts'
import { type ConnectCost, type Sample, WORKLOADS, type Workload } from './measure-fan-out.ts'
import { SERVERS, type ServerName } from './options.ts'
import type { Results } from './results.ts'
import type { SlowViewerResult } from './slow-viewer.ts'

type Row = Record<string, string>

const NAMES = Object.keys(SERVERS) as ServerName[]
const MEBIBYTE = 1024 * 1024

/** All results as Markdown, which is also readable in a terminal. */
export function report(results: Results): string {
  const { machine, slow, herd, failures } = results
  return [
    '# Fan-out benchmark',
    `Written by \`npm run bench:fanout\`. Figures are medians; the first table for each number of viewers gives the number of rounds. In each round the servers run one after the other, in another order. CPU is the user and system time of the server's process, as the operating system counts it. Latency is measured from publishing an event (for Shipcast: after its commit) until the viewers' process has read it. Shipcast's figures include appending each event to its log in Postgres (see the figures without viewers), but not the CPU time of Postgres. Every delivery is counted and its order checked; the tables show any that is missing.`,
    Object.entries(machine)
      .map(([name, value]) => `- ${name}: ${value}`)
      .join('\n'),
    '## Targets',
    table(targetRows(results)),
    ...viewerCounts(results).flatMap((viewers) => viewerSections(results, viewers)),
    ...(slow ? ['## One viewer that stops reading', table(slowRows(slow))] : []),
    ...(herd ? ['## All viewers cut off at once', table(herdRows(herd))] : []),
    ...(failures.length > 0 ? ['## Failures', failures.map((failure) => `- ${failure}`).join('\n')] : []),
    '',
  ].join('\n\n')
}

function viewerSections({ samples, connectCosts }: Results, viewers: number): string[] {
  const here = samples.filter((sample) => sample.viewers === viewers)
  const costs = connectCosts.filter((cost) => cost.viewers === viewers)
  return [
    `## ${viewers.toLocaleString('en')} viewers`,
    '### Connecting and staying connected',
    table(connectRows(costs, viewers)),
    ...(Object.keys(WORKLOADS) as Workload[]).flatMap((workload) => {
      const matching = here.filter((sample) => sample.workload === workload)
      const [first] = matching
      if (!first) return []
      return [`### ${first.events} events: ${WORKLOADS[workload]}`, table(sampleRows(matching))]
    }),
  ]
}

function connectRows(connectCosts: readonly ConnectCost[], viewers: number): Row[] {
  const rows = perServer(connectCosts, (own) => ({
    rounds: own.length,
    cpu: median(own, ({ cpuPerConnect }) => cpuPerConnect),
    event: median(own, ({ cpuPerEvent }) => cpuPerEvent),
    rss: median(own, ({ rssPerViewer }) => rssPerViewer),
    used: median(own, ({ usedPerViewer }) => usedPerViewer),
  }))
  const floor = rows.get('ws')
  // With fewer viewers, memory that the process had free already exceeds what is measured.
  const hasMemory = viewers >= 1000
  return [...rows].map(([name, { rounds, cpu, event, rss, used }]) => ({
    server: SERVERS[name],
    rounds: String(rounds),
    'CPU µs per connect and subscribe': cpu.toFixed(0),
    '× ws': ratio(cpu, floor?.cpu),
    'CPU µs per event without viewers': event.toFixed(0),
    ...(hasMemory && {
      'KiB resident per viewer': (rss / 1024).toFixed(1),
      '× ws ': ratio(rss, floor?.rss),
      'KiB of heap and buffers per viewer': (used / 1024).toFixed(1),
      '× ws  ': ratio(used, floor?.used),
    }),
  }))
}

function sampleRows(samples: readonly Sample[]): Row[] {
  const rows = perServer(samples, (own) => own)
  const cpuOf = (name: ServerName) => median(rows.get(name) ?? [], ({ cpuPerMessage }) => cpuPerMessage)
  return [...rows].map(([name, own]) => ({
    server: SERVERS[name],
    'CPU µs per message': cpuOf(name).toFixed(2),
    '× ws': ratio(cpuOf(name), cpuOf('ws')),
    '× NestJS': ratio(cpuOf(name), cpuOf('nestjs')),
    'last viewer p50 ms': median(own, ({ lastP50 }) => lastP50).toFixed(1),
    'last viewer p99 ms': median(own, ({ lastP99 }) => lastP99).toFixed(1),
    'any viewer p50 ms': median(own, ({ anyP50 }) => anyP50).toFixed(1),
    'any viewer p99 ms': median(own, ({ anyP99 }) => anyP99).toFixed(1),
    'bytes per message': median(own, ({ bytesPerMessage }) => bytesPerMessage).toFixed(0),
    delivered: own.find(({ fault }) => fault)?.fault ?? 'all, exactly once',
  }))
}

function slowRows(slow: SlowViewerResult): Row[] {
  const row = (figure: string, value: string, target = '') => ({ figure, measured: value, target })
  return [
    row('viewers', String(slow.viewers)),
    row(
      'events per second, target and reached',
      `${slow.eventsPerSecond}, ${slow.reachedPerSecond.toFixed(0)}`,
    ),
    row('memory added (heap and buffers)', `${(slow.usedAdded / MEBIBYTE).toFixed(2)} MiB`, '≤ 2 MiB'),
    row(
      'memory growth before, while all viewers read',
      `${(slow.usedGrownBefore / MEBIBYTE).toFixed(2)} MiB`,
    ),
    row('memory added (resident)', `${(slow.rssAdded / MEBIBYTE).toFixed(2)} MiB`),
    row(
      'p99 of the others, before and during',
      beforeAndDuring(slow.anyP99Before, slow.anyP99During),
      '≤ 1.20 ×',
    ),
    row(
      'p99 to the last of them, before and during',
      beforeAndDuring(slow.lastP99Before, slow.lastP99During),
    ),
    row('events published while it did not read', String(slow.missedEvents)),
    row('caught up after', `${slow.caughtUpMs.toFixed(0)} ms; closed ${slow.closes}`),
    row('each event exactly once', slow.faults || 'yes', 'yes'),
  ]
}

function herdRows(herd: HerdResult): Row[] {
  const row = (figure: string, value: string, target = '') => ({ figure, measured: value, target })
  return [
    row('viewers', String(herd.viewers)),
    row('events missed or published meanwhile', String(herd.events)),
    row('all caught up after', `${herd.caughtUpMs.toFixed(0)} ms`, '≤ 10,000 ms'),
    row('statements to the database', String(herd.statements), '≤ 20'),
    row('of which read events', String(herd.eventReads)),
    row('no gap, no repeat', herd.fault ?? 'yes', 'yes'),
  ]
}

function targetRows({ samples, connectCosts, slow, herd }: Results): Row[] {
  const cpu = (name: ServerName, viewers: number, workload: Workload) =>
    median(
      samples.filter((s) => s.server === name && s.viewers === viewers && s.workload === workload),
      ({ cpuPerMessage }) => cpuPerMessage,
    )
  const cpuRow = (viewers: number, workload: Workload, against: ServerName, target: number) =>
    targetRow(
      `CPU per message, ${viewers} viewers, ${WORKLOADS[workload]}, against ${SERVERS[against]}`,
      cpu('shipcast', viewers, workload) / cpu(against, viewers, workload),
      target,
    )
  const connectCost = (name: ServerName, viewers: number, of: (cost: ConnectCost) => number) =>
    median(
      connectCosts.filter((a) => a.server === name && a.viewers === viewers),
      of,
    )
  const connectRow = (figure: string, viewers: number, of: (cost: ConnectCost) => number, target: number) =>
    targetRow(figure, connectCost('shipcast', viewers, of) / connectCost('ws', viewers, of), target)
  const steadyP99 = (name: ServerName) =>
    median(
      samples.filter((s) => s.server === name && s.viewers === 5000 && s.workload === 'steady'),
      ({ lastP99 }) => lastP99,
    )
  return [
    cpuRow(1000, 'spaced', 'ws', 1.1),
    cpuRow(1000, 'spaced', 'nestjs', 0.45),
    cpuRow(1000, 'burst', 'ws', 0.3),
    cpuRow(1000, 'burst', 'nestjs', 0.1),
    cpuRow(5000, 'burst', 'ws', 0.3),
    cpuRow(5000, 'burst', 'nestjs', 0.1),
    cpuRow(1000, 'spaced, 100 queries', 'nestjs', 1),
    cpuRow(1000, 'burst, 100 queries', 'nestjs', 1),
    connectRow('CPU to connect and subscribe, 1000 viewers, against ws', 1000, (a) => a.cpuPerConnect, 1.5),
    connectRow('memory per idle viewer (resident), 5000 viewers, against ws', 5000, (a) => a.rssPerViewer, 2),
    connectRow(
      'memory per idle viewer (heap and buffers), 5000 viewers, against ws',
      5000,
      (a) => a.usedPerViewer,
      2,
    ),
    targetRow(
      'p99 to the last viewer, 5000 viewers, 10 events a second, against ws',
      steadyP99('shipcast') / steadyP99('ws'),
      1.3,
    ),
    executionsRow(samples),
    ...(slow
      ? [
          targetRow('a viewer that stops reading: MiB added', slow.usedAdded / MEBIBYTE, 2),
          targetRow(
            'a viewer that stops reading: p99 of the others, relative to before',
            slow.anyP99During / slow.anyP99Before,
            1.2,
          ),
        ]
      : []),
    ...(herd
      ? [
          targetRow('viewers cut off at once: seconds until all have caught up', herd.caughtUpMs / 1000, 10),
          targetRow('viewers cut off at once: statements to the database', herd.statements, 20),
        ]
      : []),
  ].filter((row) => row !== undefined)
}

function executionsRow(samples: readonly Sample[]): Row | undefined {
  const counted = samples.map(({ executions }) => executions).filter((count) => count !== undefined)
  if (counted.length === 0) return undefined
  const [min, max] = [Math.min(...counted), Math.max(...counted)]
  return {
    figure: 'executions and encodings per event and distinct query, minimum and maximum',
    measured: `${min.toFixed(2)}, ${max.toFixed(2)}`,
    target: 'exactly 1',
    met: min === 1 && max === 1 ? 'yes' : '**no**',
  }
}

/** Undefined if it was not measured. */
function targetRow(figure: string, measured: number, target: number): Row | undefined {
  if (!Number.isFinite(measured)) return undefined
  return {
    figure,
    measured: measured.toFixed(2),
    target: `≤ ${target.toFixed(2)}`,
    met: measured <= target ? 'yes' : '**no**',
  }
}

function viewerCounts({ connectCosts }: Results): number[] {
  return [...new Set(connectCosts.map(({ viewers }) => viewers))].sort((a, b) => a - b)
}

function perServer<Item extends { server: ServerName }, Result>(
  items: readonly Item[],
  sum: (own: Item[]) => Result,
): Map<ServerName, Result> {
  const own = (name: ServerName) => items.filter(({ server }) => server === name)
  return new Map(NAMES.filter((name) => own(name).length > 0).map((name) => [name, sum(own(name))]))
}

function median<Item>(items: readonly Item[], of: (item: Item) => number): number {
  const sorted = items.map(of).sort((a, b) => a - b)
  const half = sorted.length >> 1
  return sorted.length % 2 === 1 ? sorted[half]! : (sorted[half - 1]! + sorted[half]!) / 2
}

function ratio(value: number, against: number | undefined): string {
  return against ? (value / against).toFixed(2) : ''
}

function beforeAndDuring(before: number, during: number): string {
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
