import { setTimeout as sleep } from 'node:timers/promises'
import { serveCommands } from '../bench-process.ts'
import { monotonicNowMs } from '../clock.ts'
import { type DeploymentEventValue, deploymentEvent } from '../events.ts'

/** A measured server, as the bench controls it. */
export interface MeasuredServer {
  /** `ws://…` */
  url: string
  /** Sequence number of the last event. */
  lastSequence(): number
  /** Creates events and publishes them in one turn of the event loop. Resolves to the time of publishing. */
  emitTogether(count: number): Promise<number>
  close(): Promise<void>
  /** Commands of this server only. */
  extraCommands?: Record<string, () => unknown>
}

export interface EmitInput {
  /** The total number of events. */
  count: number
  /** Events per turn of the event loop. */
  together: number
  /** Milliseconds between two turns' events. */
  gapMs: number
}

export interface Emitted {
  /** When each event was published, by `monotonicNowMs`. */
  stamps: number[]
}

export interface MemoryUse {
  rss: number
  /** Heap in use, plus external memory that V8 tracks, such as buffers. */
  used: number
}

/** For servers that publish an event with one call. */
export function createPublisher(
  publish: (event: DeploymentEventValue) => void,
): Pick<MeasuredServer, 'lastSequence' | 'emitTogether'> {
  let sequence = 0
  return {
    lastSequence: () => sequence,
    async emitTogether(count) {
      const at = monotonicNowMs()
      for (let i = 0; i < count; i++) publish(deploymentEvent(++sequence))
      return at
    },
  }
}

/** Serves the bench's commands for a server. */
export function serve(server: MeasuredServer): void {
  serveCommands(
    {
      about: () => ({ url: server.url }),
      lastSequence: () => server.lastSequence(),
      emit: (input: EmitInput) => emit(server, input),
      cpu: () => cpuMicroseconds(),
      memory: () => memory(),
      memoryNow: () => memoryNow(),
      ...server.extraCommands,
    },
    () => server.close(),
  )
}

async function emit(server: MeasuredServer, { count, together, gapMs }: EmitInput): Promise<Emitted> {
  const stamps: number[] = []
  let due = monotonicNowMs()
  while (stamps.length < count) {
    const batchSize = Math.min(together, count - stamps.length)
    const stamp = await server.emitTogether(batchSize)
    for (let i = 0; i < batchSize; i++) stamps.push(stamp)
    // A server that is behind does not get two turns' events in one; it catches up
    // with a bounded delay later.
    due = Math.max(due + gapMs, monotonicNowMs() - 20 * gapMs)
    if (stamps.length < count) await sleep(Math.max(due - monotonicNowMs(), 1))
  }
  return { stamps }
}

/** User and system time of this process and all its threads, as the operating system counts it. */
function cpuMicroseconds(): number {
  const { user, system } = process.cpuUsage()
  return user + system
}

async function memory(): Promise<MemoryUse> {
  for (let i = 0; i < 3; i++) {
    global.gc?.()
    await sleep(50)
  }
  return memoryNow()
}

function memoryNow(): MemoryUse {
  const { rss, heapUsed, external } = process.memoryUsage()
  return { rss, used: heapUsed + external }
}
