import { subscriptions } from './events.ts'
import { slow } from './options.ts'
import type { MemoryUse } from './servers/serve.ts'
import { Stage } from './stage.ts'
import type { Delivery } from './viewers/viewers.ts'

const SEGMENT_SECONDS = 10
const EMIT_EVERY_MS = 20
const CATCH_UP_MS = 60_000

export interface SlowViewer {
  viewers: number
  /** What was asked for, and what the server could send. */
  eventsPerSecond: number
  reachedPerSecond: number
  anyP99Before: number
  anyP99During: number
  lastP99Before: number
  lastP99During: number
  /** Most that was in use after a collection, between segments, while the viewer did not read, above what was before. */
  usedAdded: number
  /** Grown in the same way before, when everybody read: what this grows by is not the slow viewer's. */
  usedGrownBefore: number
  rssAdded: number
  closes: string
  missedEvents: number
  caughtUpMs: number
  faults: string
}

/**
 * One viewer stops reading while events go on, then reads on, with its cursor where it has been closed. Between segments
 * of ten seconds everything comes to rest and memory is looked at, so that no collection is in anybody's latency.
 */
export async function measureSlowViewer(): Promise<SlowViewer> {
  const stage = await Stage.open('shipcast')
  try {
    await stage.connect(1, { keepCursors: true })
    await stage.show({ count: slow.fillEvents, together: 250, gapMs: 1 })
    await stage.connect(slow.viewers - 1, { queries: subscriptions(1) })
    await stage.probe()
    const { memory: filled } = await segment(stage, 2)
    const before = await segments(stage, slow.beforeSeconds)
    await stage.viewers.ask('pauseFirst')
    const lastSeen = await stage.server.ask<number>('lastSequence')
    const during = await segments(stage, slow.pauseSeconds)
    const until = (await stage.server.ask<number>('lastSequence')) + 1
    const back = await stage.viewers.ask<Delivery & { missing: number; ms: number }>(
      'resumeFirst',
      { until, deadlineMs: CATCH_UP_MS },
      CATCH_UP_MS + 10_000,
    )
    const deliveries = [...before, ...during].map(({ delivery }) => delivery)
    return {
      viewers: slow.viewers,
      eventsPerSecond: slow.eventsPerSecond,
      reachedPerSecond: median(during.map(({ rate }) => rate)),
      anyP99Before: median(before.map(({ anyP99 }) => anyP99)),
      anyP99During: median(during.map(({ anyP99 }) => anyP99)),
      lastP99Before: median(before.map(({ lastP99 }) => lastP99)),
      lastP99During: median(during.map(({ lastP99 }) => lastP99)),
      usedAdded: most(during, 'used') - most(before, 'used'),
      usedGrownBefore: before.at(-1)!.memory.used - filled.used,
      rssAdded: most(during, 'rss') - most(before, 'rss'),
      closes: JSON.stringify(back.closes),
      missedEvents: until - 1 - lastSeen,
      caughtUpMs: back.ms,
      faults: faults([...deliveries, { ...back, delivered: back.expected - back.missing }]),
    }
  } finally {
    await stage.close()
  }
}

interface Segment {
  anyP99: number
  lastP99: number
  rate: number
  memory: MemoryUse
  delivery: Delivery
}

async function segments(stage: Stage, seconds: number): Promise<Segment[]> {
  const all: Segment[] = []
  for (let left = seconds; left > 0; left -= SEGMENT_SECONDS) {
    all.push(await segment(stage, Math.min(left, SEGMENT_SECONDS)))
  }
  return all
}

async function segment(stage: Stage, seconds: number): Promise<Segment> {
  const together = Math.max(1, Math.round((slow.eventsPerSecond * EMIT_EVERY_MS) / 1000))
  const count = slow.eventsPerSecond * seconds
  const { delivery, latency, emitMs } = await stage.show({
    count,
    together,
    gapMs: (together / slow.eventsPerSecond) * 1000,
  })
  return {
    anyP99: latency?.any.p99 ?? Number.NaN,
    lastP99: latency?.last.p99 ?? Number.NaN,
    rate: count / (emitMs / 1000),
    memory: await stage.memory(),
    delivery,
  }
}

function faults(deliveries: readonly Delivery[]): string {
  const wrong = deliveries.filter(({ delivered, expected, faults }) => delivered !== expected || faults > 0)
  return wrong
    .map(({ delivered, expected, whatFaults }) => `${delivered} of ${expected} ${whatFaults.join('; ')}`)
    .join(' | ')
}

function most(segments: readonly Segment[], what: keyof MemoryUse): number {
  return Math.max(...segments.map(({ memory }) => memory[what]))
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN
}
