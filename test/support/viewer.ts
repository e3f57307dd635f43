import { type Client, createClient, type SubscribePayload } from 'graphql-ws'
import { WebSocket } from 'ws'
import { MAX_WAIT_MS, withTimeout } from './processes.ts'

export interface ReceivedEvent {
  deploymentId: string
  sequence: number
  cursor: string
  step: string
  status: string
  text: string
  error: { code: string; message: string; retryable: boolean; step: string } | null
  deployment: {
    id: string
    sequence: number
    status: string
    commitSha: string | null
    cloneUrl: string | null
  }
}

const STATUS_SUBSCRIPTION = `
  subscription Status($deploymentId: ID, $after: String) {
    deploymentStatus(deploymentId: $deploymentId, after: $after) {
      deploymentId sequence cursor step status text
      error { code message retryable step }
      deployment { id sequence status commitSha cloneUrl }
    }
  }`

/** A plain graphql-ws client with one socket. It records every event, and lets a test wait for one. */
export class Viewer {
  readonly events: ReceivedEvent[] = []
  readonly errors: unknown[] = []
  private readonly client: Client
  private readonly waiters = new Set<() => void>()
  /** The payload of `connection_ack`. */
  ack: { connectionId: string; cursor: string } | undefined
  closeCode: number | undefined

  /** `token`: sent in the payload of `connection_init`. */
  constructor(url: string, token?: string) {
    this.client = createClient({
      url,
      ...(token !== undefined && { connectionParams: { authorization: `Bearer ${token}` } }),
      webSocketImpl: WebSocket,
      lazy: false,
      retryAttempts: 0,
      onNonLazyError: () => undefined,
      on: {
        connected: (_socket, payload) => {
          this.ack = payload as Viewer['ack']
          this.notifyWaiters()
        },
        closed: (event) => {
          this.closeCode = (event as { code: number }).code
          this.notifyWaiters()
        },
      },
    })
  }

  /** Resolves once the server has acknowledged the connection. */
  async connected(): Promise<{ connectionId: string; cursor: string }> {
    await this.waitUntil(() => this.ack !== undefined, 'the connection is acknowledged')
    return this.ack as NonNullable<Viewer['ack']>
  }

  /** Subscribes to all deployments or one. Returns a function that ends the subscription. */
  follow(variables: { deploymentId?: string; after?: string } = {}): () => void {
    return this.subscribe({ query: STATUS_SUBSCRIPTION, variables })
  }

  subscribe(payload: SubscribePayload): () => void {
    return this.client.subscribe<{ deploymentStatus: ReceivedEvent }>(payload, {
      next: ({ data, errors }) => {
        if (data?.deploymentStatus) this.events.push(data.deploymentStatus)
        if (errors) this.errors.push(...errors)
        this.notifyWaiters()
      },
      error: (error) => {
        this.errors.push(...[error].flat())
        this.notifyWaiters()
      },
      complete: () => this.notifyWaiters(),
    })
  }

  /** One query or mutation over the socket. */
  async execute(query: string, variables: Record<string, unknown>): Promise<Record<string, never>> {
    return withTimeout(
      this.executeOnce(query, variables),
      () => `a response to ${query}. ${this.describeEvents()}`,
    )
  }

  eventsOf(deploymentId: string): ReceivedEvent[] {
    return this.events.filter((event) => event.deploymentId === deploymentId)
  }

  /**
   * Resolves once the condition holds, checked after every message. On a timeout,
   * rejects with what has arrived.
   */
  async waitUntil(
    condition: () => boolean,
    what = 'a condition holds',
    timeoutMs = MAX_WAIT_MS,
  ): Promise<void> {
    let isOver = false
    const holds = async () => {
      while (!isOver && !condition()) await new Promise<void>((resolve) => this.waiters.add(resolve))
    }
    await withTimeout(holds(), () => `${what}. ${this.describeEvents()}`, timeoutMs).finally(() => {
      isOver = true
    })
  }

  /** Resolves to the deployment's events once it has ended. */
  async waitForEnd(deploymentId: string): Promise<ReceivedEvent[]> {
    await this.waitUntil(
      () => isFinalEvent(this.eventsOf(deploymentId).at(-1)),
      `deployment ${deploymentId} ends`,
    )
    return this.eventsOf(deploymentId)
  }

  async close(): Promise<void> {
    await this.client.dispose()
  }

  private async executeOnce(
    query: string,
    variables: Record<string, unknown>,
  ): Promise<Record<string, never>> {
    for await (const { data, errors } of this.client.iterate({ query, variables })) {
      if (errors) throw new Error(JSON.stringify(errors))
      return data as Record<string, never>
    }
    throw new Error('The operation completed without a result.')
  }

  /** The last event of each deployment, at most ten of them, and all errors. */
  private describeEvents(): string {
    const last = new Map(this.events.map((event) => [event.deploymentId, event]))
    const events = [...last.values()]
      .slice(-10)
      .map(({ deploymentId, sequence, step, status, text, error }) => {
        const problem = error ? ` (${error.code}: ${error.message})` : ''
        return `  ${deploymentId} ${sequence} ${step} ${status} "${text}"${problem}`
      })
    return [
      `The viewer saw ${this.events.length} events of ${last.size} deployments; their last ones:`,
      ...events,
      `errors: ${JSON.stringify(this.errors)}, closed with: ${this.closeCode}`,
    ].join('\n')
  }

  private notifyWaiters(): void {
    const waiting = [...this.waiters]
    this.waiters.clear()
    for (const resolve of waiting) resolve()
  }
}

export function isFinalEvent(event: ReceivedEvent | undefined): boolean {
  return event !== undefined && ['SUCCEEDED', 'FAILED', 'CANCELLED'].includes(event.status)
}
