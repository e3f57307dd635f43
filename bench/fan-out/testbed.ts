import { setTimeout as sleep } from 'node:timers/promises'
import { createDataFolder, type DataFolder } from '../../test/support/data-folder.ts'
import { BenchProcess } from './bench-process.ts'
import { monotonicNowMs } from './clock.ts'
import { subscriptions } from './events.ts'
import type { ServerName } from './options.ts'
import type { EmitInput, Emitted, MemoryUse } from './servers/serve.ts'
import type { LatencySummary } from './viewers/arrival-times.ts'
import type { ConnectInput, Delivery, ExpectInput } from './viewers/viewers.ts'

const CONNECT_DEADLINE_MS = 120_000
const DELIVERY_DEADLINE_MS = 90_000
const IDLE_TIMEOUT_MS = 30_000
const IDLE_POLL_INTERVAL_MS = 40
const MAX_IDLE_CPU_MICROSECONDS = 2_500
const MAX_PROBES = 3
const WARM_UP_VIEWERS = 100
const WARM_UP_ROUNDS = 3

export interface EmitResult {
  cpuMicroseconds: number
  delivery: Delivery
  latency: LatencySummary | undefined
  /** From the first event to the last one. */
  emitMs: number
}

/** The flags of `npm start`. */
const NODE_FLAGS: Partial<Record<ServerName, readonly string[]>> = { shipcast: ['--max-semi-space-size=8'] }

/** One server and its viewers, in two processes, started for each measurement. */
export class Testbed {
  readonly server: BenchProcess
  readonly viewers: BenchProcess
  private readonly url: string
  private readonly dataFolder: DataFolder

  private constructor(server: BenchProcess, viewers: BenchProcess, url: string, data: DataFolder) {
    this.server = server
    this.viewers = viewers
    this.url = url
    this.dataFolder = data
  }

  /** Warmed up: the server has had some viewers and events, so its code is compiled. */
  static async open(name: ServerName): Promise<Testbed> {
    const data = await createDataFolder()
    const started: BenchProcess[] = []
    try {
      const server = await BenchProcess.start(
        name,
        `./servers/${name}.ts`,
        { DATA_DIR: data.path },
        NODE_FLAGS[name],
      )
      started.push(server)
      const viewers = await BenchProcess.start('the viewers', './viewers/viewers.ts')
      started.push(viewers)
      const { url } = await server.request<{ url: string }>('about')
      const testbed = new Testbed(server, viewers, url, data)
      await testbed.warmUp()
      return testbed
    } catch (error) {
      await Promise.all(started.map((child) => child.stop()))
      await data.remove()
      throw error
    }
  }

  async connect(
    count: number,
    options: Partial<Pick<ConnectInput, 'queries' | 'keepCursors' | 'concurrency'>> = {},
  ): Promise<void> {
    const input: ConnectInput = {
      url: this.url,
      count,
      queries: subscriptions(1),
      concurrency: 64,
      ...options,
    }
    await this.viewers.request('connect', input, CONNECT_DEADLINE_MS)
    await this.waitUntilIdle()
  }

  /** Resolves once all viewers are subscribed: an event reaches each of them. */
  async probe(): Promise<void> {
    let delivery: Delivery | undefined
    for (let i = 0; i < MAX_PROBES; i++) {
      delivery = (await this.emitAndWait({ count: 1, together: 1, gapMs: 0 }, 10_000)).delivery
      if (delivery.delivered === delivery.expected) return
    }
    throw new Error(`Not all viewers are subscribed: ${JSON.stringify(delivery)}`)
  }

  /** Emits events and waits until all viewers have received them. */
  async emitAndWait(events: EmitInput, deadlineMs = DELIVERY_DEADLINE_MS): Promise<EmitResult> {
    const first = (await this.server.request<number>('lastSequence')) + 1
    await this.viewers.request<void>('expect', { first, count: events.count } satisfies ExpectInput)
    const cpuBefore = await this.cpu()
    const emitMs = (events.count / events.together) * events.gapMs
    const { stamps } = await this.server.request<Emitted>('emit', events, emitMs + deadlineMs)
    const delivery = await this.viewers.request<Delivery>('delivered', { deadlineMs }, deadlineMs + 10_000)
    await this.waitUntilIdle()
    const cpuMicroseconds = (await this.cpu()) - cpuBefore
    const latency = await this.viewers.request<LatencySummary | undefined>('latencies', { stamps })
    return { cpuMicroseconds, delivery, latency, emitMs: stamps.at(-1)! - stamps[0]! }
  }

  cpu(): Promise<number> {
    return this.server.request<number>('cpu')
  }

  /** After a garbage collection. */
  memory(): Promise<MemoryUse> {
    return this.server.request<MemoryUse>('memory')
  }

  /** The number of executions (each with one encoding) so far, if the server has such a metric. */
  async executions(): Promise<number | undefined> {
    const response = await fetch(new URL('/metrics', this.url.replace(/^ws/, 'http')))
    const match = /^shipcast_executions_total (\d+)/m.exec(await response.text())
    return match ? Number(match[1]) : undefined
  }

  /** Waits until the server is idle. */
  async waitUntilIdle(): Promise<void> {
    const startedAt = monotonicNowMs()
    let before = await this.cpu()
    for (let idlePolls = 0; idlePolls < 2; ) {
      if (monotonicNowMs() - startedAt > IDLE_TIMEOUT_MS) throw new Error('The server does not become idle.')
      await sleep(IDLE_POLL_INTERVAL_MS)
      const now = await this.cpu()
      idlePolls = now - before < MAX_IDLE_CPU_MICROSECONDS ? idlePolls + 1 : 0
      before = now
    }
  }

  async disconnectAll(): Promise<void> {
    await this.viewers.request('close')
    await this.waitUntilIdle()
  }

  async close(): Promise<void> {
    await this.viewers.stop()
    await this.server.stop()
    await this.dataFolder.remove()
  }

  private async warmUp(): Promise<void> {
    for (let i = 0; i < WARM_UP_ROUNDS; i++) {
      await this.connect(WARM_UP_VIEWERS)
      await this.probe()
      await this.emitAndWait({ count: 40, together: 1, gapMs: 2 })
      await this.emitAndWait({ count: 40, together: 40, gapMs: 0 })
      await this.disconnectAll()
    }
  }
}
