import { serveCommands } from '../bench-process.ts'
import { monotonicNowMs } from '../clock.ts'
import { ArrivalTimes, type LatencySummary } from './arrival-times.ts'
import { Viewer, type ViewerListener } from './viewer.ts'

/* The viewers' process. It counts every delivery, and reports when all expected events have arrived. */

const MAX_RECORDED_TIMES = 4_000_000
const MAX_RECORDED_FAULTS = 3

export interface ConnectInput {
  url: string
  count: number
  /** Assigned to the viewers in turn. */
  queries: string[]
  /** How many viewers connect at once. */
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
  /** Descriptions of the first faults. */
  faultMessages: string[]
  closes: Record<number, number>
}

let viewers: Viewer[] = []
let concurrency = 1
let isClosing = false
let arrivals: ArrivalTimes | undefined
let endSequence = 0
let pendingViewers = 0
let delivery = newDelivery(0)
let onFinished: (() => void) | undefined
/** All frames of a chunk share one reading of the clock. */
let nowMs = 0

const listener: ViewerListener = {
  delivered(viewer, sequence, bytes) {
    delivery.delivered++
    delivery.bytes += bytes
    if (nowMs === 0) {
      nowMs = monotonicNowMs()
      process.nextTick(() => {
        nowMs = 0
      })
    }
    arrivals?.record(viewer.index, sequence, nowMs)
    if (sequence === endSequence - 1 && --pendingViewers === 0) onFinished?.()
  },
  fault(viewer, description) {
    delivery.faults++
    if (delivery.faultMessages.length < MAX_RECORDED_FAULTS)
      delivery.faultMessages.push(`viewer ${viewer.index} ${description}`)
  },
  closed(_viewer, code) {
    if (!isClosing) delivery.closes[code] = (delivery.closes[code] ?? 0) + 1
  },
}

serveCommands(
  {
    async connect({ url, count, queries, concurrency: maxConnecting, keepCursors = false }: ConnectInput) {
      concurrency = maxConnecting
      isClosing = false
      const added = Array.from(
        { length: count },
        (_, i) =>
          new Viewer(listener, viewers.length + i, new URL(url), queries[i % queries.length]!, keepCursors),
      )
      viewers.push(...added)
      await connectAll(added)
    },

    /** From now on, every viewer that is not paused expects these events. */
    expect({ first, count }: ExpectInput) {
      endSequence = first + count
      const reading = viewers.filter((viewer) => !viewer.isPaused)
      for (const viewer of reading) viewer.nextSequence = first
      pendingViewers = reading.length
      const samplingInterval = Math.ceil((viewers.length * count) / MAX_RECORDED_TIMES)
      arrivals = new ArrivalTimes({ viewers: viewers.length, first, count, samplingInterval })
      delivery = newDelivery(reading.length * count)
    },

    /** Waits until all expected events have arrived or time is up; resolves to what has arrived. */
    async delivered({ deadlineMs }: { deadlineMs: number }): Promise<Delivery> {
      if (pendingViewers > 0) {
        await new Promise<void>((resolve) => {
          onFinished = resolve
          setTimeout(resolve, deadlineMs).unref()
        })
        onFinished = undefined
      }
      return delivery
    },

    latencies({ stamps }: { stamps: number[] }): LatencySummary | undefined {
      return arrivals?.summarize(stamps)
    },

    /** The first viewer stops reading, until `resumeFirst`. */
    pauseFirst: () => viewers[0]?.pause(),

    /**
     * The first viewer reads again, reconnecting with its cursor if it was closed, up to
     * the event before `until`.
     */
    async resumeFirst({ until, deadlineMs }: { until: number; deadlineMs: number }) {
      const viewer = viewers[0]!
      const startedAt = monotonicNowMs()
      const before = viewer.nextSequence
      delivery = newDelivery(until - before)
      viewer.resume()
      while (viewer.nextSequence < until && monotonicNowMs() - startedAt < deadlineMs) {
        if (!viewer.isSubscribed) await viewer.connect().catch(() => undefined)
        await sleep(5)
      }
      return { ...delivery, missing: until - viewer.nextSequence, ms: monotonicNowMs() - startedAt }
    },

    /** All viewers lose their connections at once. None has received an event from `next` on. */
    disconnectAll({ next, until }: { next: number; until: number }) {
      isClosing = true
      for (const viewer of viewers) viewer.cut()
      for (const viewer of viewers) viewer.nextSequence = next
      isClosing = false
      endSequence = until
      pendingViewers = viewers.length
      arrivals = undefined
      delivery = newDelivery(viewers.length * (until - next))
    },

    reconnectAll: () => connectAll(viewers),

    close() {
      isClosing = true
      for (const viewer of viewers) viewer.cut()
      viewers = []
      arrivals = undefined
    },
  },
  async () => undefined,
)

async function connectAll(targets: readonly Viewer[]): Promise<void> {
  let next = 0
  const connectNext = async () => {
    for (let viewer = targets[next++]; viewer; viewer = targets[next++]) await viewer.connect()
  }
  await Promise.all(Array.from({ length: Math.min(concurrency, targets.length) }, connectNext))
}

function newDelivery(expected: number): Delivery {
  return { delivered: 0, expected, bytes: 0, faults: 0, faultMessages: [], closes: {} }
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms))
}
