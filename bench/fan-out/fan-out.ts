import { subscriptions } from './events.ts'
import type { Scenario, ServerName } from './options.ts'
import type { EmitInput } from './servers/serve.ts'
import { Stage } from './stage.ts'
import type { Delivery } from './viewers/viewers.ts'

const DISTINCT_QUERIES = 100
/** Enough for a steady figure, few enough for a bounded time: deliveries of one showing. */
const DELIVERIES = 100_000
const EVENTS_ALONE = 100
const DISTINCT_VIEWERS = 1000
const STEADY_VIEWERS = 5000

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
  /** Of Shipcast only: executions (each with one encoding) per event and distinct query. */
  executions: number | undefined
  fault: string | undefined
}

export interface Arrival {
  server: ServerName
  viewers: number
  /** To take an event without a viewer; for Shipcast, to append it to its log. */
  cpuPerEvent: number
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
    const show = async (showing: Showing, events: EmitInput) => {
      samples.push(await sample(stage, { server, viewers, showing }, events))
    }
    await stage.probe()
    if (scenarios.includes('spaced')) await show('spaced', spacedEvents(viewers, DELIVERIES))
    if (scenarios.includes('burst')) await show('burst', burstOf(viewers))
    if (scenarios.includes('steady') && viewers === STEADY_VIEWERS) {
      await show('steady', { count: 100, together: 1, gapMs: 100 })
    }
    if (scenarios.includes('distinct') && viewers === DISTINCT_VIEWERS) {
      await stage.dismiss()
      await stage.connect(viewers, { queries: subscriptions(DISTINCT_QUERIES) })
      await stage.probe()
      await show('spaced, 100 queries', spacedEvents(viewers, DELIVERIES / 2))
      await show('burst, 100 queries', burstOf(viewers))
    }
    return { arrival, samples }
  } finally {
    await stage.close()
  }
}

async function measureArrival(stage: Stage, server: ServerName, viewers: number): Promise<Arrival> {
  const alone = await stage.show({ count: EVENTS_ALONE, together: 1, gapMs: 5 })
  const memoryBefore = await stage.memory()
  await stage.quiet()
  const cpuBefore = await stage.cpu()
  await stage.connect(viewers)
  const cpu = (await stage.cpu()) - cpuBefore
  const memory = await stage.memory()
  return {
    server,
    viewers,
    cpuPerEvent: alone.cpuMicroseconds / EVENTS_ALONE,
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
  const isOurs = what.server === 'shipcast'
  const executionsBefore = isOurs ? await stage.executions() : undefined
  const { cpuMicroseconds, delivery, latency } = await stage.show(events)
  const executions = isOurs ? await stage.executions() : undefined
  const queries = what.showing.includes('100 queries') ? DISTINCT_QUERIES : 1
  return {
    ...what,
    events: events.count,
    cpuPerMessage: cpuMicroseconds / delivery.delivered,
    lastP50: latency?.last.p50 ?? Number.NaN,
    lastP99: latency?.last.p99 ?? Number.NaN,
    anyP50: latency?.any.p50 ?? Number.NaN,
    anyP99: latency?.any.p99 ?? Number.NaN,
    bytesPerMessage: delivery.bytes / delivery.delivered,
    executions:
      executions === undefined || executionsBefore === undefined
        ? undefined
        : (executions - executionsBefore) / (events.count * queries),
    fault: faultOf(delivery),
  }
}

function faultOf({ delivered, expected, faults, whatFaults, closes }: Delivery): string | undefined {
  const isWhole = delivered === expected && faults === 0 && Object.keys(closes).length === 0
  if (isWhole) return undefined
  return `${delivered} of ${expected} delivered, ${faults} faults, closed ${JSON.stringify(closes)} ${whatFaults.join('; ')}`
}

function spacedEvents(viewers: number, deliveries: number): EmitInput {
  return { count: Math.min(200, Math.max(10, Math.round(deliveries / viewers))), together: 1, gapMs: 10 }
}

function burstOf(viewers: number): EmitInput {
  const count = Math.min(100, Math.round(DELIVERIES / viewers))
  return { count, together: count, gapMs: 0 }
}
