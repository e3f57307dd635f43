import { ConsoleLogger, type DynamicModule } from '@nestjs/common'
import { Test, type TestingModule } from '@nestjs/testing'
import { PubSub, PubSubEngine } from 'graphql-subscriptions'
import { AuthModule } from '../../../src/auth/auth.module.ts'
import type { RequestContext } from '../../../src/auth/principal.ts'
import { LOCAL_SUBJECT } from '../../../src/auth/rights.ts'
import { ConfigModule } from '../../../src/config/config.module.ts'
import { Config } from '../../../src/config/config.ts'
import { Database } from '../../../src/database/database.ts'
import { DeploymentService } from '../../../src/deployments/deployment.service.ts'
import { DeploymentStore } from '../../../src/deployments/deployment-store.ts'
import { DeploymentsModule } from '../../../src/deployments/deployments.module.ts'
import { DeploymentRunner } from '../../../src/deployments/runner/deployment-runner.ts'
import { LeaseStore, type RenewedLease } from '../../../src/deployments/runner/lease-store.ts'
import { isActive, type LoggedEvent } from '../../../src/events/deployment-event.ts'
import { EventFeed } from '../../../src/events/event-feed.ts'
import { EventLog } from '../../../src/events/event-log.ts'
import { EventsModule } from '../../../src/events/events.module.ts'
import { GitHubModule } from '../../../src/github/github.module.ts'
import { GitHubClient } from '../../../src/github/github-client.ts'
import { MetricsModule } from '../../../src/metrics/metrics.module.ts'
import { PubSubModule } from '../../../src/pubsub/pubsub.module.ts'
import { waitUntil, withTimeout } from '../processes.ts'

export interface TestNodeOptions {
  database: Database
  github: GitHubClient
  concurrency?: number
  leaseMs?: number
  /** By default the node receives no signals from other nodes. */
  pubSub?: PubSubEngine
}

/** A request from this machine on a server without accounts, where everyone is an admin. */
export const LOCAL_REQUEST: RequestContext = {
  subject: LOCAL_SUBJECT,
  credential: undefined,
  address: '127.0.0.1',
  connectionId: undefined,
  signal: new AbortController().signal,
}

/** One node without its network side, made of the real modules. Several can share a database. */
export class TestNode {
  readonly log: EventLog
  readonly feed: EventFeed
  readonly store: DeploymentStore
  readonly runner: DeploymentRunner
  readonly service: DeploymentService
  private readonly leases: SilenceableLeaseStore
  private stopped: Promise<void> | undefined

  private constructor(private readonly module: TestingModule) {
    this.log = module.get(EventLog, { strict: false })
    this.feed = module.get(EventFeed, { strict: false })
    this.store = module.get(DeploymentStore, { strict: false })
    this.runner = module.get(DeploymentRunner, { strict: false })
    this.service = module.get(DeploymentService, { strict: false })
    this.leases = module.get<LeaseStore, SilenceableLeaseStore>(LeaseStore, { strict: false })
  }

  static async start(options: TestNodeOptions): Promise<TestNode> {
    const { database, github, concurrency = 10, leaseMs = 6_000, pubSub = new PubSub() } = options
    const config = new Config({ DEPLOY_CONCURRENCY: String(concurrency), LEASE_MS: String(leaseMs) })
    const module = await Test.createTestingModule({
      imports: [
        ConfigModule.forRoot(config),
        AuthModule,
        DeploymentsModule,
        GitHubModule,
        provide(Database, database),
        EventsModule,
        PubSubModule,
        MetricsModule,
      ],
    })
      .overrideProvider(GitHubClient)
      .useValue(github)
      .overrideProvider(LeaseStore)
      .useClass(SilenceableLeaseStore)
      .overrideModule(PubSubModule)
      .useModule(provide(PubSubEngine, pubSub))
      .setLogger(new ConsoleLogger(process.env.LOG_LEVEL ? {} : { logLevels: [] }))
      .compile()
    await module.init()
    const node = new TestNode(module)
    // A claim reserves slots for a moment: a deployment accepted meanwhile would be queued.
    await waitUntil(() => node.runner.isClaiming, 'the first claim ends')
    return node
  }

  /** As at SIGTERM; a second call has no effect. */
  stop(): Promise<void> {
    this.stopped ??= this.module.close()
    return this.stopped
  }

  /** Stops the heartbeat, as if the process were paused while a call to the forge is in flight. */
  silence(): void {
    this.leases.isSilent = true
  }

  unsilence(): void {
    this.leases.isSilent = false
  }

  /** Accepts a small deployment of a new repository; resolves to its id. */
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

  /** Resolves to the deployment's events up to the first for which `isLast` holds; by default, its end. */
  async eventsOf(
    deploymentId: string,
    isLast = (event: LoggedEvent) => !isActive(event.deployment),
  ): Promise<LoggedEvent[]> {
    const events: LoggedEvent[] = []
    const stream = await this.feed.follow({
      sees: 'all',
      deploymentId,
      after: this.feed.cursorOf(0),
    })
    const read = async () => {
      for await (const event of stream) {
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

class SilenceableLeaseStore extends LeaseStore {
  isSilent = false

  override renewLeases(...args: Parameters<LeaseStore['renewLeases']>): Promise<RenewedLease[]> {
    return this.isSilent ? Promise.reject(new Error('Silenced.')) : super.renewLeases(...args)
  }
}

/** A global module with one provider, which belongs to the test and outlives the node. */
function provide(token: typeof Database | typeof PubSubEngine, value: object): DynamicModule {
  return {
    module: class {},
    global: true,
    providers: [{ provide: token, useValue: value }],
    exports: [token],
  }
}
