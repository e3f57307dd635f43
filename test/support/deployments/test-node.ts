import { PubSub, type PubSubEngine } from 'graphql-subscriptions'
import { RateLimiter } from '../../../src/auth/rate-limiter.ts'
import type { RequestContext } from '../../../src/auth/request-context.ts'
import { LOCAL_SUBJECT } from '../../../src/auth/rights.ts'
import { Config } from '../../../src/config/config.ts'
import type { Database } from '../../../src/database/database.ts'
import { DeploymentService } from '../../../src/deployments/deployment.service.ts'
import { DeploymentStore } from '../../../src/deployments/deployment-store.ts'
import { DeploymentMetrics } from '../../../src/deployments/runner/deployment-metrics.ts'
import { DeploymentRunner } from '../../../src/deployments/runner/deployment-runner.ts'
import { LeaseStore } from '../../../src/deployments/runner/lease-store.ts'
import { RunnerSignals } from '../../../src/deployments/runner/runner-signals.ts'
import { EventFeed } from '../../../src/events/event-feed.ts'
import { EventLog } from '../../../src/events/event-log.ts'
import { isActive, type LoggedEvent } from '../../../src/events/logged-event.ts'
import type { GitHubClient } from '../../../src/github/github-client.ts'
import { Metrics } from '../../../src/metrics/metrics.ts'
import { TemplateCatalog } from '../../../src/templates/template-catalog.ts'
import { withTimeout } from '../processes.ts'

export interface TestNodeOptions {
  database: Database
  github: GitHubClient
  concurrency?: number
  leaseMs?: number
  pubSub?: PubSubEngine
}

/** A request of somebody on this machine, where everybody may do everything. */
export const LOCAL_REQUEST: RequestContext = {
  subject: LOCAL_SUBJECT,
  credential: undefined,
  address: '127.0.0.1',
  connectionId: undefined,
  signal: new AbortController().signal,
}

/** One node without its network side, put together as the modules do it. Several may share a database. */
export class TestNode {
  readonly log: EventLog
  readonly feed: EventFeed
  readonly store: DeploymentStore
  readonly leases: LeaseStore
  readonly runner: DeploymentRunner
  readonly service: DeploymentService

  private stopped: Promise<void> | undefined

  private constructor(
    readonly options: TestNodeOptions,
    templates: TemplateCatalog,
  ) {
    const { database, github, concurrency = 10, leaseMs = 6_000, pubSub = new PubSub() } = options
    const config = new Config({ DEPLOY_CONCURRENCY: String(concurrency), LEASE_MS: String(leaseMs) })
    this.log = new EventLog(database, pubSub)
    this.feed = new EventFeed(this.log, pubSub)
    this.store = new DeploymentStore(database, this.log)
    this.leases = new LeaseStore(database, this.log)
    const metrics = new DeploymentMetrics(new Metrics(), this.feed)
    const signals = new RunnerSignals(pubSub)
    this.runner = new DeploymentRunner(config, database, this.leases, github, metrics, signals)
    this.service = new DeploymentService(
      this.store,
      this.runner,
      templates,
      this.feed,
      signals,
      database,
      new RateLimiter(config),
    )
  }

  static async start(options: TestNodeOptions): Promise<TestNode> {
    const node = new TestNode(options, await TemplateCatalog.load('templates'))
    await node.feed.onModuleInit()
    await node.runner.onApplicationBootstrap()
    return node
  }

  /** As at SIGTERM; a second time does nothing. */
  stop(): Promise<void> {
    this.stopped ??= this.runner.onModuleDestroy().then(() => this.feed.beforeApplicationShutdown())
    return this.stopped
  }

  /** Accepts a small deployment of a repository of its own; resolves to its id. */
  async deploy(overrides: { org?: string; repo?: string } = {}): Promise<string> {
    const { id } = await this.service.deploy(
      {
        org: 'acme',
        repo: `demo-${crypto.randomUUID()}`,
        contents: { files: [{ path: 'README.md', content: '# Demo\n' }] },
        ...overrides,
      },
      LOCAL_REQUEST,
    )
    return id
  }

  /** Resolves to the deployment's events up to the first that `isLast` holds for; by default, that it has ended. */
  async eventsOf(
    deploymentId: string,
    isLast = (event: LoggedEvent) => !isActive(event.deployment),
  ): Promise<LoggedEvent[]> {
    const events: LoggedEvent[] = []
    const follower = await this.feed.follow({
      sees: 'all',
      deploymentId,
      waitForEventAfter: this.feed.cursorOf(0),
    })
    const read = async () => {
      for await (const event of follower) {
        events.push(event)
        if (isLast(event)) break
      }
    }
    await withTimeout(
      read(),
      () => `${isLast}; the last event is ${JSON.stringify(events.at(-1)?.deployment)}`,
    )
    return events
  }
}
