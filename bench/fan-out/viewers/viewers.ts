import { answerParent } from '../child.ts'
import { clock } from '../clock.ts'
import { Arrivals, type LatencySummary } from './latencies.ts'
import { type Audience, Viewer } from './viewer.ts'

/* The process of the viewers. It counts every delivery, and says when all that was expected has come. */

const MOST_TIMES = 4_000_000
const FAULTS_KEPT = 3

export interface ConnectInput {
  url: string
  count: number
  /** The viewers take them in turn. */
  queries: string[]
  /** How many may be on their way in at once. */
  concurrency: number
  keepCursors?: boolean
}

export interface ExpectInput {
  first: number
  count: number
}

export interface Delivery {
  delivered: number
  expected: number
  bytes: number
  faults: number
  /** The first of them, in words. */
  whatFaults: string[]
  closes: Record<number, number>
}

let viewers: Viewer[] = []
let concurrency = 1
let isClosing = false
let arrivals: Arrivals | undefined
let end = 0
let unfinished = 0
let delivery = newDelivery(0)
let finished: (() => void) | undefined
/** One look at the clock serves all frames of a chunk. */
let now = 0

const audience: Audience = {
  delivered(viewer, sequence, bytes) {
    delivery.delivered++
    delivery.bytes += bytes
    if (now === 0) {
      now = clock()
      process.nextTick(() => {
        now = 0
      })
    }
    arrivals?.note(viewer.index, sequence, now)
    if (sequence === end - 1 && --unfinished === 0) finished?.()
  },
  fault(viewer, what) {
    delivery.faults++
    if (delivery.whatFaults.length < FAULTS_KEPT) delivery.whatFaults.push(`viewer ${viewer.index} ${what}`)
  },
  closed(_viewer, code) {
    if (!isClosing) delivery.closes[code] = (delivery.closes[code] ?? 0) + 1
  },
}

answerParent(
  {
    async connect({ url, count, queries, concurrency: most, keepCursors = false }: ConnectInput) {
      concurrency = most
      isClosing = false
      const added = Array.from(
        { length: count },
        (_, i) =>
          new Viewer(audience, viewers.length + i, new URL(url), queries[i % queries.length]!, keepCursors),
      )
      viewers.push(...added)
      await connectAll(added)
    },

    /** From now on these events are waited for, by everybody who is not paused. */
    expect({ first, count }: ExpectInput) {
      end = first + count
      const awake = viewers.filter((viewer) => !viewer.isPaused)
      for (const viewer of awake) viewer.nextSequence = first
      unfinished = awake.length
      const every = Math.ceil((viewers.length * count) / MOST_TIMES)
      arrivals = new Arrivals({ viewers: viewers.length, first, count, every })
      delivery = newDelivery(awake.length * count)
    },

    /** Waits until everything has come or time is up; says what has come. */
    async delivered({ deadlineMs }: { deadlineMs: number }): Promise<Delivery> {
      if (unfinished > 0) {
        await new Promise<void>((resolve) => {
          finished = resolve
          setTimeout(resolve, deadlineMs).unref()
        })
        finished = undefined
      }
      return delivery
    },

    latencies({ stamps }: { stamps: number[] }): LatencySummary | undefined {
      return arrivals?.summary(stamps)
    },

    clock: () => clock(),

    /** The first viewer stops reading, for as long as the bench wants. */
    pauseFirst: () => viewers[0]?.pause(),

    /** It reads on, comes back with its cursor if it is closed, and has caught up with everything before `end`. */
    async resumeFirst({ until, deadlineMs }: { until: number; deadlineMs: number }) {
      const viewer = viewers[0]!
      const started = clock()
      const before = viewer.nextSequence
      delivery = newDelivery(until - before)
      viewer.resume()
      while (viewer.nextSequence < until && clock() - started < deadlineMs) {
        if (!viewer.isSubscribed) await viewer.connect().catch(() => undefined)
        await pause(5)
      }
      return { ...delivery, missing: until - viewer.nextSequence, ms: clock() - started }
    },

    /** Everybody's connection is lost at once. Nobody has seen an event from `next` on. */
    cutAll({ next, until }: { next: number; until: number }) {
      isClosing = true
      for (const viewer of viewers) viewer.cut()
      for (const viewer of viewers) viewer.nextSequence = next
      isClosing = false
      end = until
      unfinished = viewers.length
      arrivals = undefined
      delivery = newDelivery(viewers.length * (until - next))
    },

    returnAll: () => connectAll(viewers),

    close() {
      isClosing = true
      for (const viewer of viewers) viewer.cut()
      viewers = []
      arrivals = undefined
    },
  },
  async () => undefined,
)

async function connectAll(those: readonly Viewer[]): Promise<void> {
  let next = 0
  const connectOn = async () => {
    for (let viewer = those[next++]; viewer; viewer = those[next++]) await viewer.connect()
  }
  await Promise.all(Array.from({ length: Math.min(concurrency, those.length) }, connectOn))
}

function newDelivery(expected: number): Delivery {
  return { delivered: 0, expected, bytes: 0, faults: 0, whatFaults: [], closes: {} }
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms))
}
