import { setTimeout as sleep } from 'node:timers/promises'
import { createDataFolder, type DataFolder } from '../../test/support/data-folder.ts'
import { Child } from './child.ts'
import { clock } from './clock.ts'
import { subscriptions } from './events.ts'
import type { ServerName } from './options.ts'
import type { EmitInput, Emitted, MemoryUse } from './servers/serve.ts'
import type { LatencySummary } from './viewers/latencies.ts'
import type { ConnectInput, Delivery, ExpectInput } from './viewers/viewers.ts'

const CONNECT_DEADLINE_MS = 120_000
const DELIVERY_DEADLINE_MS = 90_000
const QUIET_DEADLINE_MS = 30_000
const QUIET_LOOK_MS = 40
const QUIET_CPU_MICROSECONDS = 2_500
const PROBES = 3
const WARM_VIEWERS = 100
const WARM_TIMES = 3

export interface Shown {
  cpuMicroseconds: number
  delivery: Delivery
  latency: LatencySummary | undefined
  /** From the first event to the last one. */
  emitMs: number
}

/** As `npm start` has them. */
const FLAGS: Partial<Record<ServerName, readonly string[]>> = { shipcast: ['--max-semi-space-size=8'] }

/** One server and its viewers, each in a process of its own, made anew for each measurement. */
export class Stage {
  readonly server: Child
  readonly viewers: Child
  private readonly url: string
  private readonly data: DataFolder

  private constructor(server: Child, viewers: Child, url: string, data: DataFolder) {
    this.server = server
    this.viewers = viewers
    this.url = url
    this.data = data
  }

  /** The server has had some viewers and events, so that its code is compiled. */
  static async open(name: ServerName): Promise<Stage> {
    const data = await createDataFolder()
    const started: Child[] = []
    try {
      const server = await Child.start(name, `./servers/${name}.ts`, { DATA_DIR: data.path }, FLAGS[name])
      started.push(server)
      const viewers = await Child.start('the viewers', './viewers/viewers.ts')
      started.push(viewers)
      const { url } = await server.ask<{ url: string }>('about')
      const stage = new Stage(server, viewers, url, data)
      await stage.warm()
      return stage
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
    await this.viewers.ask('connect', input, CONNECT_DEADLINE_MS)
    await this.quiet()
  }

  /** Everybody's subscription stands: an event reaches them all. */
  async probe(): Promise<void> {
    let delivery: Delivery | undefined
    for (let i = 0; i < PROBES; i++) {
      delivery = (await this.show({ count: 1, together: 1, gapMs: 0 }, 10_000)).delivery
      if (delivery.delivered === delivery.expected) return
    }
    throw new Error(`Not everybody is subscribed: ${JSON.stringify(delivery)}`)
  }

  /** Emits events and waits until everybody has them. */
  async show(events: EmitInput, deadlineMs = DELIVERY_DEADLINE_MS): Promise<Shown> {
    const first = (await this.server.ask<number>('lastSequence')) + 1
    await this.viewers.ask<void>('expect', { first, count: events.count } satisfies ExpectInput)
    const cpuBefore = await this.cpu()
    const emitMs = (events.count / events.together) * events.gapMs
    const { stamps } = await this.server.ask<Emitted>('emit', events, emitMs + deadlineMs)
    const delivery = await this.viewers.ask<Delivery>('delivered', { deadlineMs }, deadlineMs + 10_000)
    await this.quiet()
    const cpuMicroseconds = (await this.cpu()) - cpuBefore
    const latency = await this.viewers.ask<LatencySummary | undefined>('latencies', { stamps })
    return { cpuMicroseconds, delivery, latency, emitMs: stamps.at(-1)! - stamps[0]! }
  }

  cpu(): Promise<number> {
    return this.server.ask<number>('cpu')
  }

  /** After a garbage collection. */
  memory(): Promise<MemoryUse> {
    return this.server.ask<MemoryUse>('memory')
  }

  /** How many events have been executed and encoded so far, where the server tells. */
  async executions(): Promise<number | undefined> {
    const response = await fetch(new URL('/metrics', this.url.replace(/^ws/, 'http')))
    const match = /^shipcast_executions_total (\d+)/m.exec(await response.text())
    return match ? Number(match[1]) : undefined
  }

  /** Waits until the server has nothing left to do. */
  async quiet(): Promise<void> {
    const started = clock()
    let before = await this.cpu()
    for (let quietLooks = 0; quietLooks < 2; ) {
      if (clock() - started > QUIET_DEADLINE_MS) throw new Error('The server does not come to rest.')
      await sleep(QUIET_LOOK_MS)
      const now = await this.cpu()
      quietLooks = now - before < QUIET_CPU_MICROSECONDS ? quietLooks + 1 : 0
      before = now
    }
  }

  async dismiss(): Promise<void> {
    await this.viewers.ask('close')
    await this.quiet()
  }

  async close(): Promise<void> {
    await this.viewers.stop()
    await this.server.stop()
    await this.data.remove()
  }

  private async warm(): Promise<void> {
    for (let i = 0; i < WARM_TIMES; i++) {
      await this.connect(WARM_VIEWERS)
      await this.probe()
      await this.show({ count: 40, together: 1, gapMs: 2 })
      await this.show({ count: 40, together: 40, gapMs: 0 })
      await this.dismiss()
    }
  }
}
