import { subscriptions } from './events.ts'
import { slowViewerOptions } from './options.ts'
import type { MemoryUse } from './servers/serve.ts'
import { Testbed } from './testbed.ts'
import type { Delivery } from './viewers/viewers.ts'

const SEGMENT_SECONDS = 10
const EMIT_INTERVAL_MS = 20
const CATCH_UP_TIMEOUT_MS = 60_000

export interface SlowViewerResult {
  viewers: number
  /** The target rate, and the rate that the server reached. */
  eventsPerSecond: number
  reachedPerSecond: number
  anyP99Before: number
  anyP99During: number
  lastP99Before: number
  lastP99During: number
  /** Peak memory between segments, after a collection, while the viewer is paused; minus the peak before. */
  usedAdded: number
  /** Growth before the pause, while all viewers read: not caused by the slow viewer. */
  usedGrownBefore: number
  rssAdded: number
  closes: string
  missedEvents: number
  caughtUpMs: number
  faults: string
}

/**
 * One viewer stops reading while events continue, then resumes; if it was closed, with its cursor.
 * Between segments of ten seconds the server becomes idle and its memory is measured, so that no
 * collection affects a latency.
 */
export async function measureSlowViewer(): Promise<SlowViewerResult> {
  const testbed = await Testbed.open('shipcast')
  try {
    await testbed.connect(1, { keepCursors: true })
    await testbed.emitAndWait({ count: slowViewerOptions.fillEvents, together: 250, gapMs: 1 })
    await testbed.connect(slowViewerOptions.viewers - 1, { queries: subscriptions(1) })
    await testbed.probe()
    const { memory: filled } = await measureSegment(testbed, 2)
    const before = await measureSegments(testbed, slowViewerOptions.beforeSeconds)
    await testbed.viewers.request('pauseFirst')
    const lastSeen = await testbed.server.request<number>('lastSequence')
    const during = await measureSegments(testbed, slowViewerOptions.pauseSeconds)
    const until = (await testbed.server.request<number>('lastSequence')) + 1
    const resumed = await testbed.viewers.request<Delivery & { missing: number; ms: number }>(
      'resumeFirst',
      { until, deadlineMs: CATCH_UP_TIMEOUT_MS },
      CATCH_UP_TIMEOUT_MS + 10_000,
    )
    const deliveries = [...before, ...during].map(({ delivery }) => delivery)
    return {
      viewers: slowViewerOptions.viewers,
      eventsPerSecond: slowViewerOptions.eventsPerSecond,
      reachedPerSecond: median(during.map(({ rate }) => rate)),
      anyP99Before: median(before.map(({ anyP99 }) => anyP99)),
      anyP99During: median(during.map(({ anyP99 }) => anyP99)),
      lastP99Before: median(before.map(({ lastP99 }) => lastP99)),
      lastP99During: median(during.map(({ lastP99 }) => lastP99)),
      usedAdded: maxMemory(during, 'used') - maxMemory(before, 'used'),
      usedGrownBefore: before.at(-1)!.memory.used - filled.used,
      rssAdded: maxMemory(during, 'rss') - maxMemory(before, 'rss'),
      closes: JSON.stringify(resumed.closes),
      missedEvents: until - 1 - lastSeen,
      caughtUpMs: resumed.ms,
      faults: describeFaults([...deliveries, { ...resumed, delivered: resumed.expected - resumed.missing }]),
    }
  } finally {
    await testbed.close()
  }
}

interface Segment {
  anyP99: number
  lastP99: number
  rate: number
  memory: MemoryUse
  delivery: Delivery
}

async function measureSegments(testbed: Testbed, seconds: number): Promise<Segment[]> {
  const all: Segment[] = []
  for (let left = seconds; left > 0; left -= SEGMENT_SECONDS) {
    all.push(await measureSegment(testbed, Math.min(left, SEGMENT_SECONDS)))
  }
  return all
}

async function measureSegment(testbed: Testbed, seconds: number): Promise<Segment> {
  const together = Math.max(1, Math.round((slowViewerOptions.eventsPerSecond * EMIT_INTERVAL_MS) / 1000))
  const count = slowViewerOptions.eventsPerSecond * seconds
  const { delivery, latency, emitMs } = await testbed.emitAndWait({
    count,
    together,
    gapMs: (together / slowViewerOptions.eventsPerSecond) * 1000,
  })
  return {
    anyP99: latency?.any.p99 ?? Number.NaN,
    lastP99: latency?.last.p99 ?? Number.NaN,
    rate: count / (emitMs / 1000),
    memory: await testbed.memory(),
    delivery,
  }
}

function describeFaults(deliveries: readonly Delivery[]): string {
  const faulty = deliveries.filter(({ delivered, expected, faults }) => delivered !== expected || faults > 0)
  return faulty
    .map(
      ({ delivered, expected, faultMessages }) => `${delivered} of ${expected} ${faultMessages.join('; ')}`,
    )
    .join(' | ')
}

function maxMemory(segments: readonly Segment[], kind: keyof MemoryUse): number {
  return Math.max(...segments.map(({ memory }) => memory[kind]))
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN
}
