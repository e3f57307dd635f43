import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { HttpAdapterHost } from '@nestjs/core'
import { GraphQLSchemaHost } from '@nestjs/graphql'
import { buildSchema, type GraphQLSchema } from 'graphql'
import { PubSub } from 'graphql-subscriptions'
import { ClientAddress } from '../../../src/auth/client-address.ts'
import { Authenticator } from '../../../src/auth/credentials/authenticator.ts'
import { CredentialStore } from '../../../src/auth/credentials/credential-store.ts'
import { SessionMonitor } from '../../../src/auth/credentials/session-monitor.ts'
import { RateLimiter } from '../../../src/auth/rate-limiter.ts'
import { originOf, type RequestContext } from '../../../src/auth/request-context.ts'
import { Config } from '../../../src/config/config.ts'
import type { Database } from '../../../src/database/database.ts'
import { toDeploymentEvent } from '../../../src/deployments/deployment.model.ts'
import { EventFeed } from '../../../src/events/event-feed.ts'
import { EventLog } from '../../../src/events/event-log.ts'
import type { LoggedEvent } from '../../../src/events/logged-event.ts'
import { OriginPolicy } from '../../../src/http/origin.middleware.ts'
import type { Connection } from '../../../src/live/connection.ts'
import { FanOut } from '../../../src/live/fan-out.ts'
import { GraphQLProtocol } from '../../../src/live/graphql-protocol.ts'
import { LiveMetrics } from '../../../src/live/live-metrics.ts'
import { SubscriptionSocket } from '../../../src/live/subscription-socket.ts'
import { Metrics } from '../../../src/metrics/metrics.ts'

/** The live side of a node: log, feed, fan-out and socket, put together as the modules do it. */
export class LiveNode {
  readonly log: EventLog
  readonly feed: EventFeed
  readonly metrics = new LiveMetrics(new Metrics())
  readonly fanOut: FanOut
  readonly server: Server = createServer()
  readonly socket: SubscriptionSocket
  readonly sessionMonitor: SessionMonitor

  private constructor(
    private readonly database: Database,
    extend: (schema: GraphQLSchema) => GraphQLSchema,
  ) {
    this.log = new EventLog(database, new PubSub())
    this.feed = new EventFeed(this.log, new PubSub())
    this.fanOut = new FanOut(this.feed, this.metrics)
    const adapterHost = { httpAdapter: { getHttpServer: () => this.server } } as unknown as HttpAdapterHost
    const schemaHost = Object.assign(new GraphQLSchemaHost(), { schema: extend(this.schema()) })
    const config = new Config({ DRAIN_MS: '0' })
    const limits = new RateLimiter(config)
    const credentialStore = new CredentialStore(database)
    const authenticator = new Authenticator(config, database, credentialStore, limits)
    this.sessionMonitor = new SessionMonitor(credentialStore, new PubSub())
    const protocol = new GraphQLProtocol(
      this.feed,
      this.fanOut,
      authenticator,
      this.sessionMonitor,
      limits,
      this.metrics,
    )
    this.socket = new SubscriptionSocket(
      config,
      adapterHost,
      schemaHost,
      protocol,
      this.sessionMonitor,
      this.metrics,
      this.feed,
      new ClientAddress(config),
      new OriginPolicy(config),
    )
  }

  /** `extend` may give the schema more fields. */
  static async start(
    database: Database,
    extend: (schema: GraphQLSchema) => GraphQLSchema = (schema) => schema,
  ): Promise<LiveNode> {
    const node = new LiveNode(database, extend)
    await node.feed.onModuleInit()
    node.fanOut.onModuleInit()
    await node.sessionMonitor.onModuleInit()
    node.socket.onApplicationBootstrap()
    node.server.listen(0, '127.0.0.1')
    await once(node.server, 'listening')
    return node
  }

  get url(): string {
    return `ws://127.0.0.1:${(this.server.address() as AddressInfo).port}/graphql`
  }

  get connections(): Connection[] {
    return [...(Reflect.get(this.socket, 'connections') as Set<Connection>)]
  }

  /** Appends events of one deployment, in one transaction, and lets the feed look. */
  async append(id: string, count: number, descriptionLength?: number): Promise<void> {
    await this.appendWithoutNotification(id, count, descriptionLength)
    this.feed.poll()
  }

  /**
   * As another node does whose hints are lost. By default events have three kilobytes, so that a few thousand are more
   * than the operating system takes for a socket.
   */
  async appendWithoutNotification(id: string, count: number, descriptionLength = 3_000): Promise<void> {
    await this.database.query(APPEND, [id, count, descriptionLength])
  }

  /** What happens every second. */
  checkSockets(): void {
    Reflect.apply(Reflect.get(this.socket, 'checkSockets') as () => void, this.socket, [])
  }

  /** From now on only `checkSockets` does: a test that counts seconds would otherwise count real ones as well. */
  stopSocketChecks(): void {
    clearInterval(Reflect.get(this.socket, 'checkTimer') as NodeJS.Timeout)
  }

  async stop(): Promise<void> {
    await this.socket.beforeApplicationShutdown()
    this.server.close()
    await this.sessionMonitor.onModuleDestroy()
    await this.feed.beforeApplicationShutdown()
  }

  private schema(): GraphQLSchema {
    const schema = buildSchema(readFileSync('schema.gql', 'utf8'))
    const field = schema.getSubscriptionType()?.getFields().deploymentStatus
    if (!field) throw new Error('schema.gql has no deploymentStatus.')
    field.subscribe = (_root, { after, deploymentId }, context: RequestContext) =>
      this.feed.follow({
        sees: context.subject.rights.sees,
        waitForEventAfter: after,
        deploymentId: deploymentId ?? undefined,
        origin: originOf(context),
      })
    field.resolve = (event: LoggedEvent) => toDeploymentEvent(event, this.feed.cursorOf(event.position))
    return schema
  }
}

const APPEND = `
  with base as (
    select coalesce(max(sequence), 0) as last from events where deployment_id = $1::uuid
  ), first as (
    insert into deployments (id, org, repo, visibility, description, branch, step, status, text, sequence, attempt,
      file_count, size_bytes, created_at, updated_at, input_digest, planned_commit, planned_tree, object_count,
      pack_bytes, run_at)
    values ($1::uuid, 'org', $1::uuid::text, 'PUBLIC', repeat('x', $3), 'main', 'DEPLOY', 'RUNNING', 'Creating org',
      1, 1, 0, 0, now(), now(), '', '', '', 0, 0, now())
    on conflict (id) do update set updated_at = now()
    returning *
  ), head as (
    update log set head = head + $2, link = 0 returning head - $2 as before
  )
  insert into events
  select head.before + n, first.id, base.last + n, now(), null, deployment_snapshot(row(first.*)::deployments)
  from first, base, head, generate_series(1, $2::int) n`
