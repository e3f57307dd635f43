import { monotonicNowMs } from './clock.ts'
import { herdViewers } from './options.ts'
import type { Emitted } from './servers/serve.ts'
import { Testbed } from './testbed.ts'
import type { Delivery } from './viewers/viewers.ts'

const DEADLINE_MS = 60_000
const EVENTS_WHILE_AWAY = 50
const EVENTS_WHILE_RECONNECTING = 20
const RECONNECT_CONCURRENCY = 256
/** The bench's own appends and their notifications. */
const APPEND_STATEMENTS = /bench_emit|pg_notify/

export interface HerdResult {
  viewers: number
  events: number
  caughtUpMs: number
  /**
   * Statements sent to the database meanwhile, including polls of runner and feed, without
   * the bench's own appends.
   */
  statements: number
  eventReads: number
  statementCounts: Record<string, number>
  fault: string | undefined
}

/**
 * All viewers lose their connections at once. Events continue while they are disconnected and while they
 * reconnect, counted they do without a delay, each with the cursor of the last event it received.
 */
export async function measureHerd(): Promise<HerdResult> {
  const testbed = await Testbed.open('shipcast')
  try {
    await testbed.connect(herdViewers, { keepCursors: true, concurrency: RECONNECT_CONCURRENCY })
    await testbed.probe()
    const { server, viewers } = testbed
    const next = (await server.request<number>('lastSequence')) + 1
    const events = EVENTS_WHILE_AWAY + EVENTS_WHILE_RECONNECTING
    await server.request('resetStatements')
    const startedAt = monotonicNowMs()
    await viewers.request('disconnectAll', { next, until: next + events })
    const emitted: Promise<Emitted>[] = [emit(testbed, EVENTS_WHILE_AWAY, 10, 1)]
    await emitted[0]
    emitted.push(emit(testbed, EVENTS_WHILE_RECONNECTING, 1, 50))
    const reconnected = viewers.request('reconnectAll', {}, DEADLINE_MS)
    await Promise.all([...emitted, reconnected])
    const delivery = await viewers.request<Delivery>(
      'delivered',
      { deadlineMs: DEADLINE_MS },
      DEADLINE_MS + 5_000,
    )
    const caughtUpMs = monotonicNowMs() - startedAt
    const counts = await server.request<Record<string, number>>('statements')
    const counted = Object.entries(counts).filter(([text]) => !APPEND_STATEMENTS.test(text))
    return {
      viewers: herdViewers,
      events,
      caughtUpMs,
      statements: sum(counted),
      eventReads: sum(counted.filter(([text]) => /\bfrom events\b/.test(text))),
      statementCounts: Object.fromEntries(counted),
      fault:
        delivery.delivered === delivery.expected && delivery.faults === 0
          ? undefined
          : `${delivery.delivered} of ${delivery.expected}, ${delivery.faults} faults: ${delivery.faultMessages.join('; ')}`,
    }
  } finally {
    await testbed.close()
  }
}

function sum(statements: readonly [string, number][]): number {
  return statements.reduce((total, [, count]) => total + count, 0)
}

function emit(testbed: Testbed, count: number, together: number, gapMs: number): Promise<Emitted> {
  return testbed.server.request<Emitted>('emit', { count, together, gapMs }, DEADLINE_MS)
}
