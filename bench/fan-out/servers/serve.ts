import { setTimeout as sleep } from 'node:timers/promises'
import { answerParent } from '../child.ts'
import { clock } from '../clock.ts'
import { type DeploymentEventValue, deploymentEvent } from '../events.ts'

/** A server under measurement, as the bench drives it. */
export interface MeasuredServer {
  /** `ws://…` */
  url: string
  /** Number of the last event; the next one is one more. */
  lastSequence(): number
  /** Makes events and hands them to the server in one turn. Resolves to the moment of handing over. */
  emitTogether(count: number): Promise<number>
  close(): Promise<void>
  /** Whatever else the bench may ask it. */
  extra?: Record<string, () => unknown>
}

export interface EmitInput {
  /** How many events in all. */
  count: number
  /** How many of them in one turn. */
  together: number
  /** From one turn's events to the next one's. */
  gapMs: number
}

export interface Emitted {
  /** When each event was handed over; see `clock`. */
  stamps: number[]
}

export interface MemoryUse {
  rss: number
  /** Heap in use and everything that V8 knows to lie outside of it, buffers included. */
  used: number
}

/** For servers to which an event is handed by one call. */
export function publisher(
  publish: (event: DeploymentEventValue) => void,
): Pick<MeasuredServer, 'lastSequence' | 'emitTogether'> {
  let sequence = 0
  return {
    lastSequence: () => sequence,
    async emitTogether(count) {
      const at = clock()
      for (let i = 0; i < count; i++) publish(deploymentEvent(++sequence))
      return at
    },
  }
}

/** Answers the bench for a server. */
export function serve(server: MeasuredServer): void {
  answerParent(
    {
      about: () => ({ url: server.url }),
      lastSequence: () => server.lastSequence(),
      emit: (input: EmitInput) => emit(server, input),
      cpu: () => cpuMicroseconds(),
      memory: () => memory(),
      memoryNow: () => memoryNow(),
      ...server.extra,
    },
    () => server.close(),
  )
}

async function emit(server: MeasuredServer, { count, together, gapMs }: EmitInput): Promise<Emitted> {
  const stamps: number[] = []
  let due = clock()
  while (stamps.length < count) {
    const now = Math.min(together, count - stamps.length)
    const stamp = await server.emitTogether(now)
    for (let i = 0; i < now; i++) stamps.push(stamp)
    // A server that is behind is not given two turns' events in one; a bounded delay is made up for later.
    due = Math.max(due + gapMs, clock() - 20 * gapMs)
    if (stamps.length < count) await sleep(Math.max(due - clock(), 1))
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
