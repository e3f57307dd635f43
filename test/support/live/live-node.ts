import { readFileSync } from 'node:fs'
import type { Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { type INestApplication, Module } from '@nestjs/common'
import { NestFactory } from '@nestjs/core'
import { GraphQLSchemaHost } from '@nestjs/graphql'
import { buildSchema, type GraphQLSchema } from 'graphql'
import { PubSub, PubSubEngine } from 'graphql-subscriptions'
import { ClientAddress } from '../../../src/auth/client-address.ts'
import { Authenticator } from '../../../src/auth/credentials/authenticator.ts'
import { CredentialStore } from '../../../src/auth/credentials/credential-store.ts'
import { SessionMonitor } from '../../../src/auth/credentials/session-monitor.ts'
import { originOf, type RequestContext } from '../../../src/auth/principal.ts'
import { RateLimiter } from '../../../src/auth/rate-limiter.ts'
import { Config } from '../../../src/config/config.ts'
import { Database } from '../../../src/database/database.ts'
import { toDeploymentEvent } from '../../../src/deployments/deployment.model.ts'
import type { LoggedEvent } from '../../../src/events/deployment-event.ts'
import { EventFeed } from '../../../src/events/event-feed.ts'
import { EventLog } from '../../../src/events/event-log.ts'
import { EVENT_SUBSCRIPTION } from '../../../src/events/event-stream.ts'
import { OriginPolicy } from '../../../src/http/origin.middleware.ts'
import type { Connection } from '../../../src/live/connection.ts'
import { DocumentCache } from '../../../src/live/document-cache.ts'
import { ExecutionScheduler } from '../../../src/live/execution-scheduler.ts'
import { FanOut } from '../../../src/live/fan-out.ts'
import { GraphQLProtocol } from '../../../src/live/graphql-protocol.ts'
import { LiveMetrics } from '../../../src/live/live-metrics.ts'
import { EncodedEventCache } from '../../../src/live/shared-subscription.ts'
import { SocketClock, SubscriptionSocket } from '../../../src/live/subscription-socket.ts'
import { Metrics } from '../../../src/metrics/metrics.ts'

@Module({})
class LiveNodeModule {}

/**
 * The live side of a node: event log, feed, fan-out and socket, with a schema whose
 * resolvers come from the test.
 */
export class LiveNode {
  private constructor(
    private readonly app: INestApplication,
    private readonly database: Database,
    readonly feed: EventFeed,
    readonly clock: ManualClock,
    /** The time for executions in one turn of the event loop. With 0, all executions wait. */
    readonly slice: { sliceMs: number },
  ) {}

  /** `extend` may add fields to the schema. */
  static async start(
    database: Database,
    extend: (schema: GraphQLSchema) => GraphQLSchema = (schema) => schema,
  ): Promise<LiveNode> {
    const config = new Config({ DRAIN_MS: '0' })
    const pubSub = new PubSub()
    // Notifications of the log go nowhere: the feed reads the log when the test says so.
    const log = new EventLog(database, new PubSub())
    const feed = new EventFeed(log, pubSub)
    const clock = new ManualClock()
    const slice = { sliceMs: SLICE_MS }
    const schemaHost = Object.assign(new GraphQLSchemaHost(), { schema: extend(createSchema(feed)) })
    const app = await NestFactory.create(
      {
        module: LiveNodeModule,
        providers: [
          { provide: Config, useValue: config },
          { provide: Database, useValue: database },
          { provide: PubSubEngine, useValue: pubSub },
          { provide: GraphQLSchemaHost, useValue: schemaHost },
          { provide: EventFeed, useValue: feed },
          { provide: SocketClock, useValue: clock },
          { provide: ExecutionScheduler, useValue: new ExecutionScheduler(slice) },
          Authenticator,
          ClientAddress,
          CredentialStore,
          DocumentCache,
          EncodedEventCache,
          FanOut,
          GraphQLProtocol,
          LiveMetrics,
          Metrics,
          OriginPolicy,
          RateLimiter,
          SessionMonitor,
          SubscriptionSocket,
        ],
      },
      { logger: false, abortOnError: false },
    )
    try {
      await app.listen(0, '127.0.0.1')
    } catch (error) {
      await app.close()
      throw error
    }
    return new LiveNode(app, database, feed, clock, slice)
  }

  get url(): string {
    return `ws://127.0.0.1:${(this.server.address() as AddressInfo).port}/graphql`
  }

  get server(): Server {
    return this.app.getHttpServer()
  }

  get metrics(): LiveMetrics {
    return this.app.get(LiveMetrics)
  }

  get sessionMonitor(): SessionMonitor {
    return this.app.get(SessionMonitor)
  }

  get encodedEvents(): EncodedEventCache {
    return this.app.get(EncodedEventCache)
  }

  get connections(): Connection[] {
    return [...this.app.get(SubscriptionSocket).connections]
  }

  /** Appends events of one deployment, in one transaction, and lets the feed read them. */
  async append(id: string, count: number, descriptionLength?: number): Promise<void> {
    await this.appendWithoutNotification(id, count, descriptionLength)
    this.feed.poll()
  }

  /**
   * Appends like another node whose notifications are lost. By default, events have three kilobytes, so that
   * a few thousand exceed what the operating system buffers for a socket.
   */
  async appendWithoutNotification(id: string, count: number, descriptionLength = 3_000): Promise<void> {
    await this.database.query(APPEND, [id, count, descriptionLength])
  }

  async stop(): Promise<void> {
    await this.app.close()
  }
}

const SLICE_MS = 12

/** Time passes only when the test says so. */
export class ManualClock extends SocketClock {
  private readonly callbacks = new Set<() => void>()
  private offsetMs = 0

  override now(): number {
    return super.now() + this.offsetMs
  }

  override everySecond(callback: () => void): () => void {
    this.callbacks.add(callback)
    return () => this.callbacks.delete(callback)
  }

  /** Calls everything that is due every second, once. */
  tick(): void {
    for (const callback of this.callbacks) callback()
  }

  advance(ms: number): void {
    this.offsetMs += ms
  }
}

function createSchema(feed: EventFeed): GraphQLSchema {
  const schema = buildSchema(readFileSync('schema.gql', 'utf8'))
  const field = schema.getSubscriptionType()?.getFields().deploymentStatus
  if (!field) throw new Error('schema.gql has no deploymentStatus.')
  field.extensions = { [EVENT_SUBSCRIPTION]: true }
  field.subscribe = (_root, { after, deploymentId }, context: RequestContext) =>
    feed.follow({
      sees: context.subject.rights.sees,
      after,
      deploymentId: deploymentId ?? undefined,
      origin: originOf(context),
    })
  field.resolve = (event: LoggedEvent) => toDeploymentEvent(event, feed.cursorOf(event.position))
  return schema
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
    update log set head = head + $2, event_id = 0 returning head - $2 as before
  )
  insert into events
  select head.before + n, first.id, base.last + n, now(), null, deployment_snapshot(row(first.*)::deployments)
  from first, base, head, generate_series(1, $2::int) n`
