import { subscriptions } from './events.ts'
import type { Scenario, ServerName } from './options.ts'
import type { EmitInput } from './servers/serve.ts'
import { Testbed } from './testbed.ts'
import type { Delivery } from './viewers/viewers.ts'

const DISTINCT_QUERIES = 100
/** Deliveries per workload: enough for a stable result, few enough for a bounded time. */
const TARGET_DELIVERIES = 100_000
const EVENTS_WITHOUT_VIEWERS = 100
const DISTINCT_VIEWERS = 1000
const STEADY_VIEWERS = 5000

export const WORKLOADS = {
  spaced: 'events 10 ms apart',
  burst: 'burst',
  'spaced, 100 queries': 'events 10 ms apart, 100 distinct queries',
  'burst, 100 queries': 'burst, 100 distinct queries',
  steady: '10 events a second',
} as const
export type Workload = keyof typeof WORKLOADS

export interface Sample {
  server: ServerName
  viewers: number
  workload: Workload
  events: number
  cpuPerMessage: number
  lastP50: number
  lastP99: number
  anyP50: number
  anyP99: number
  bytesPerMessage: number
  /** Shipcast only: executions (each with one encoding) per event and distinct query. */
  executions: number | undefined
  fault: string | undefined
}

export interface ConnectCost {
  server: ServerName
  viewers: number
  /** For an event without viewers; Shipcast appends it to its log. */
  cpuPerEvent: number
  cpuPerConnect: number
  rssPerViewer: number
  usedPerViewer: number
}

/** Measures one server with this number of viewers. */
export async function measureFanOut(
  server: ServerName,
  viewers: number,
  scenarios: readonly Scenario[],
): Promise<{ connectCost: ConnectCost; samples: Sample[] }> {
  const testbed = await Testbed.open(server)
  try {
    const connectCost = await measureConnectCost(testbed, server, viewers)
    const samples: Sample[] = []
    const measure = async (workload: Workload, events: EmitInput) => {
      samples.push(await measureSample(testbed, { server, viewers, workload }, events))
    }
    await testbed.probe()
    if (scenarios.includes('spaced')) await measure('spaced', spacedEvents(viewers, TARGET_DELIVERIES))
    if (scenarios.includes('burst')) await measure('burst', burstEvents(viewers))
    if (scenarios.includes('steady') && viewers === STEADY_VIEWERS) {
      await measure('steady', { count: 100, together: 1, gapMs: 100 })
    }
    if (scenarios.includes('distinct') && viewers === DISTINCT_VIEWERS) {
      await testbed.disconnectAll()
      await testbed.connect(viewers, { queries: subscriptions(DISTINCT_QUERIES) })
      await testbed.probe()
      await measure('spaced, 100 queries', spacedEvents(viewers, TARGET_DELIVERIES / 2))
      await measure('burst, 100 queries', burstEvents(viewers))
    }
    return { connectCost, samples }
  } finally {
    await testbed.close()
  }
}

async function measureConnectCost(
  testbed: Testbed,
  server: ServerName,
  viewers: number,
): Promise<ConnectCost> {
  const alone = await testbed.emitAndWait({ count: EVENTS_WITHOUT_VIEWERS, together: 1, gapMs: 5 })
  const memoryBefore = await testbed.memory()
  await testbed.waitUntilIdle()
  const cpuBefore = await testbed.cpu()
  await testbed.connect(viewers)
  const cpu = (await testbed.cpu()) - cpuBefore
  const memory = await testbed.memory()
  return {
    server,
    viewers,
    cpuPerEvent: alone.cpuMicroseconds / EVENTS_WITHOUT_VIEWERS,
    cpuPerConnect: cpu / viewers,
    rssPerViewer: (memory.rss - memoryBefore.rss) / viewers,
    usedPerViewer: (memory.used - memoryBefore.used) / viewers,
  }
}

async function measureSample(
  testbed: Testbed,
  target: Pick<Sample, 'server' | 'viewers' | 'workload'>,
  events: EmitInput,
): Promise<Sample> {
  const isShipcast = target.server === 'shipcast'
  const executionsBefore = isShipcast ? await testbed.executions() : undefined
  const { cpuMicroseconds, delivery, latency } = await testbed.emitAndWait(events)
  const executions = isShipcast ? await testbed.executions() : undefined
  const queries = target.workload.includes('100 queries') ? DISTINCT_QUERIES : 1
  return {
    ...target,
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
    fault: describeFault(delivery),
  }
}

function describeFault({ delivered, expected, faults, faultMessages, closes }: Delivery): string | undefined {
  const isComplete = delivered === expected && faults === 0 && Object.keys(closes).length === 0
  if (isComplete) return undefined
  return `${delivered} of ${expected} delivered, ${faults} faults, closed ${JSON.stringify(closes)} ${faultMessages.join('; ')}`
}

function spacedEvents(viewers: number, deliveries: number): EmitInput {
  return { count: Math.min(200, Math.max(10, Math.round(deliveries / viewers))), together: 1, gapMs: 10 }
}

function burstEvents(viewers: number): EmitInput {
  const count = Math.min(100, Math.round(TARGET_DELIVERIES / viewers))
  return { count, together: count, gapMs: 0 }
}
