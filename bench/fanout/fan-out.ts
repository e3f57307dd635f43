import { subscriptions } from './events.ts'
import type { Scenario, ServerName } from './options.ts'
import type { EmitInput } from './servers/serve.ts'
import { Stage } from './stage.ts'
import type { Delivery } from './viewers/viewers.ts'

const DISTINCT_QUERIES = 100
/** Enough for a steady figure, few enough for a bounded time: deliveries of one showing. */
const DELIVERIES = 100_000
const MANY_VIEWERS = 5000

export const SHOWINGS = {
  spaced: 'events 10 ms apart',
  burst: 'burst',
  'spaced, 100 queries': 'events 10 ms apart, 100 distinct queries',
  'burst, 100 queries': 'burst, 100 distinct queries',
  steady: '10 events a second',
} as const
export type Showing = keyof typeof SHOWINGS

export interface Sample {
  server: ServerName
  viewers: number
  showing: Showing
  events: number
  cpuPerMessage: number
  lastP50: number
  lastP99: number
  anyP50: number
  anyP99: number
  bytesPerMessage: number
  fault: string | undefined
}

export interface Arrival {
  server: ServerName
  viewers: number
  cpuPerConnect: number
  rssPerViewer: number
  usedPerViewer: number
}

/** Everything about one server with so many viewers. */
export async function measureFanOut(
  server: ServerName,
  viewers: number,
  scenarios: readonly Scenario[],
): Promise<{ arrival: Arrival; samples: Sample[] }> {
  const stage = await Stage.open(server)
  try {
    const arrival = await measureArrival(stage, server, viewers)
    const samples: Sample[] = []
    const show = async (showing: Showing, events: EmitInput, times = 1) => {
      for (let i = 0; i < times; i++) samples.push(await sample(stage, { server, viewers, showing }, events))
    }
    const spaced = spacedEvents(viewers)
    const burst = burstOf(viewers)
    await stage.probe()
    if (scenarios.includes('spaced')) await show('spaced', spaced)
    if (scenarios.includes('burst')) await show('burst', burst, 2)
    if (scenarios.includes('steady') && viewers >= MANY_VIEWERS) {
      await show('steady', { count: 60, together: 1, gapMs: 100 })
    }
    if (scenarios.includes('distinct') && viewers >= DISTINCT_QUERIES * 10 && viewers < MANY_VIEWERS) {
      await stage.dismiss()
      await stage.connect(viewers, { queries: subscriptions(DISTINCT_QUERIES) })
      await stage.probe()
      await show('spaced, 100 queries', spaced)
      await show('burst, 100 queries', burst)
    }
    return { arrival, samples }
  } finally {
    await stage.close()
  }
}

async function measureArrival(stage: Stage, server: ServerName, viewers: number): Promise<Arrival> {
  const memoryBefore = await stage.memory()
  await stage.quiet()
  const cpuBefore = await stage.cpu()
  await stage.connect(viewers)
  const cpu = (await stage.cpu()) - cpuBefore
  const memory = await stage.memory()
  return {
    server,
    viewers,
    cpuPerConnect: cpu / viewers,
    rssPerViewer: (memory.rss - memoryBefore.rss) / viewers,
    usedPerViewer: (memory.used - memoryBefore.used) / viewers,
  }
}

async function sample(
  stage: Stage,
  what: Pick<Sample, 'server' | 'viewers' | 'showing'>,
  events: EmitInput,
): Promise<Sample> {
  const { cpuMicroseconds, delivery, latency } = await stage.show(events)
  return {
    ...what,
    events: events.count,
    cpuPerMessage: cpuMicroseconds / delivery.delivered,
    lastP50: latency?.last.p50 ?? Number.NaN,
    lastP99: latency?.last.p99 ?? Number.NaN,
    anyP50: latency?.any.p50 ?? Number.NaN,
    anyP99: latency?.any.p99 ?? Number.NaN,
    bytesPerMessage: delivery.bytes / delivery.delivered,
    fault: faultOf(delivery),
  }
}

function faultOf({ delivered, expected, faults, whatFaults, closes }: Delivery): string | undefined {
  const isWhole = delivered === expected && faults === 0 && Object.keys(closes).length === 0
  if (isWhole) return undefined
  return `${delivered} of ${expected} delivered, ${faults} faults, closed ${JSON.stringify(closes)} ${whatFaults.join('; ')}`
}

function spacedEvents(viewers: number): EmitInput {
  return { count: Math.min(200, Math.max(20, Math.round(DELIVERIES / viewers))), together: 1, gapMs: 10 }
}

function burstOf(viewers: number): EmitInput {
  const count = viewers >= MANY_VIEWERS ? 20 : 100
  return { count, together: count, gapMs: 0 }
}
