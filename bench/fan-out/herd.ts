import { clock } from './clock.ts'
import { herdViewers } from './options.ts'
import type { Emitted } from './servers/serve.ts'
import { Stage } from './stage.ts'
import type { Delivery } from './viewers/viewers.ts'

const DEADLINE_MS = 60_000
const EVENTS_WHILE_AWAY = 50
const EVENTS_WHILE_RETURNING = 20
const RETURNING_AT_ONCE = 256
/** The bench's own appends, and telling other nodes of them. */
const APPENDS = /bench_emit|pg_notify/

export interface Herd {
  viewers: number
  events: number
  caughtUpMs: number
  /** Everything that the server sent to its database meanwhile, but for the bench's own appends. The runner's and the feed's looks are in it. */
  statements: number
  eventReads: number
  whichStatements: Record<string, number>
  fault: string | undefined
}

/**
 * All viewers lose their connections at once. Events go on while they are away and while they come back, which they do
 * without waiting, each with the cursor of the last event that it has seen.
 */
export async function measureHerd(): Promise<Herd> {
  const stage = await Stage.open('shipcast')
  try {
    await stage.connect(herdViewers, { keepCursors: true, concurrency: RETURNING_AT_ONCE })
    await stage.probe()
    const { server, viewers } = stage
    const next = (await server.ask<number>('lastSequence')) + 1
    const events = EVENTS_WHILE_AWAY + EVENTS_WHILE_RETURNING
    await server.ask('resetStatements')
    const started = clock()
    await viewers.ask('cutAll', { next, until: next + events })
    const emitted: Promise<Emitted>[] = [emit(stage, EVENTS_WHILE_AWAY, 10, 1)]
    await emitted[0]
    emitted.push(emit(stage, EVENTS_WHILE_RETURNING, 1, 50))
    const returned = viewers.ask('returnAll', {}, DEADLINE_MS)
    await Promise.all([...emitted, returned])
    const delivery = await viewers.ask<Delivery>(
      'delivered',
      { deadlineMs: DEADLINE_MS },
      DEADLINE_MS + 5_000,
    )
    const caughtUpMs = clock() - started
    const all = await server.ask<Record<string, number>>('statements')
    const which = Object.entries(all).filter(([text]) => !APPENDS.test(text))
    return {
      viewers: herdViewers,
      events,
      caughtUpMs,
      statements: sum(which),
      eventReads: sum(which.filter(([text]) => /\bfrom events\b/.test(text))),
      whichStatements: Object.fromEntries(which),
      fault:
        delivery.delivered === delivery.expected && delivery.faults === 0
          ? undefined
          : `${delivery.delivered} of ${delivery.expected}, ${delivery.faults} faults: ${delivery.whatFaults.join('; ')}`,
    }
  } finally {
    await stage.close()
  }
}

function sum(statements: readonly [string, number][]): number {
  return statements.reduce((total, [, count]) => total + count, 0)
}

function emit(stage: Stage, count: number, together: number, gapMs: number): Promise<Emitted> {
  return stage.server.ask<Emitted>('emit', { count, together, gapMs }, DEADLINE_MS)
}
