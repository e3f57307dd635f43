import { Injectable, Logger, type OnModuleDestroy, type OnModuleInit } from '@nestjs/common'
import { PubSubEngine } from 'graphql-subscriptions'
import { CoalescedTask } from '../../runtime/coalesced-task.ts'
import { areRightsEqual } from '../rights.ts'
import type { Identity } from './authenticator.ts'
import { ACCESS_TOPIC, CredentialStore } from './credential-store.ts'

/** The codes of graphql-ws: its client gives up after the first, and reconnects after the second. */
export const CLOSE_UNAUTHENTICATED = 4401
export const CLOSE_FORBIDDEN = 4403

const SESSION_ENDED_REASON =
  'Token or session expired or revoked; sign in again, or reconnect with a new token'
const RIGHTS_CHANGED_REASON = 'Access rights changed; reconnect with your last cursor'

const SECOND_MS = 1_000
/** How often all credentials in use are checked, even if no notification arrived. */
const CHECK_INTERVAL_SECONDS = 5
/** How old the last successful check may be. Together with the check interval, well below 30 seconds. */
const MAX_STALE_MS = 20_000

/** What the monitor needs of a connection. */
interface MonitoredConnection {
  /** Set by the monitor. Connections with the same credential share it. */
  identity: Identity | undefined
  readonly writer: { pause(): void; resume(): void }
  closeAndWait(code: number, reason: string): Promise<void>
}

interface WatchedCredential {
  identity: Identity
  connections: Set<MonitoredConnection>
}

/**
 * Ends a subscriber's access together with its token or session, on sockets that stay open for days. Each
 * credential is checked once for all sockets that use it.
 *
 *   valid ──expired, revoked─────> closed with 4401: sign in again
 *     │ └──rights changed────────> closed with 4403: reconnect, and resume with the new rights
 *     └──no answer for 20 s──────> paused: nothing is written until the database answers
 */
@Injectable()
export class SessionMonitor implements OnModuleInit, OnModuleDestroy {
  private readonly logger = new Logger(SessionMonitor.name)
  private readonly watchedCredentials = new Map<string, WatchedCredential>()
  private subscription: number | undefined
  private timer: NodeJS.Timeout | undefined
  private second = 0
  private confirmedAt = performance.now()
  private isPaused = false
  private readonly checkTask = new CoalescedTask(
    () => this.checkNow(),
    (error) => this.logger.warn('Checking tokens and sessions failed; retrying', { error }),
  )

  constructor(
    private readonly credentialStore: CredentialStore,
    private readonly pubSub: PubSubEngine,
  ) {}

  async onModuleInit(): Promise<void> {
    this.subscription = await this.pubSub.subscribe(ACCESS_TOPIC, () => this.check(), {})
    this.timer = setInterval(() => this.tick(), SECOND_MS)
  }

  async onModuleDestroy(): Promise<void> {
    clearInterval(this.timer)
    if (this.subscription !== undefined) this.pubSub.unsubscribe(this.subscription)
    await this.checkTask.idle()
  }

  /** Starts watching a connection that has just been authenticated. */
  watch(connection: MonitoredConnection, identity: Identity): void {
    connection.identity = identity
    const { credential } = identity
    if (!credential) return
    if (this.watchedCredentials.size === 0) this.confirmedAt = performance.now()
    const watched = this.watchedCredentials.get(credential.id)
    if (watched && areRightsEqual(watched.identity.subject.rights, identity.subject.rights)) {
      connection.identity = watched.identity
      watched.connections.add(connection)
    } else {
      // The other connections were authenticated before the credential's rights changed.
      this.closeConnections(credential.id, CLOSE_FORBIDDEN, RIGHTS_CHANGED_REASON)
      this.watchedCredentials.set(credential.id, { identity, connections: new Set([connection]) })
    }
  }

  /** Switches to another token of the subject. Closes if the rights differ: subscriptions keep the old. */
  renew(connection: MonitoredConnection, identity: Identity): void {
    const previous = connection.identity
    this.unwatch(connection)
    this.watch(connection, identity)
    if (previous && !areRightsEqual(previous.subject.rights, identity.subject.rights)) {
      void connection.closeAndWait(CLOSE_FORBIDDEN, RIGHTS_CHANGED_REASON)
    }
  }

  unwatch(connection: MonitoredConnection): void {
    const id = connection.identity?.credential?.id
    const watched = id === undefined ? undefined : this.watchedCredentials.get(id)
    watched?.connections.delete(connection)
    if (id !== undefined && watched?.connections.size === 0) this.watchedCredentials.delete(id)
  }

  /** Checks all credentials in use. Concurrent calls share one check, followed by one more. */
  check(): void {
    this.checkTask.run()
  }

  private tick(): void {
    this.second = (this.second + 1) % CHECK_INTERVAL_SECONDS
    if (this.second === 0 || this.isPaused || this.hasExpired()) this.check()
    if (this.watchedCredentials.size > 0 && performance.now() - this.confirmedAt > MAX_STALE_MS) {
      this.pauseAll()
    }
  }

  /** Whether a credential seems to have expired. The database decides: this clock may be wrong or jump. */
  private hasExpired(): boolean {
    const now = Date.now()
    for (const { identity } of this.watchedCredentials.values()) {
      if (identity.credential && identity.credential.expiresAt.getTime() <= now) return true
    }
    return false
  }

  private async checkNow(): Promise<void> {
    const ids = [...this.watchedCredentials.keys()]
    const startedAt = performance.now()
    if (ids.length > 0) {
      const valid = await this.credentialStore.findValid(ids)
      for (const id of ids) {
        const credential = valid.get(id)
        const rights = this.watchedCredentials.get(id)?.identity.subject.rights
        if (!credential) {
          this.closeConnections(id, CLOSE_UNAUTHENTICATED, SESSION_ENDED_REASON)
        } else if (rights && !areRightsEqual(rights, credential.subject.rights)) {
          this.closeConnections(id, CLOSE_FORBIDDEN, RIGHTS_CHANGED_REASON)
        }
      }
    }
    this.confirmedAt = startedAt
    if (this.isPaused) this.resumeAll()
  }

  private closeConnections(id: string, code: number, reason: string): void {
    const connections = this.watchedCredentials.get(id)?.connections ?? []
    this.watchedCredentials.delete(id)
    for (const connection of connections) void connection.closeAndWait(code, reason)
  }

  private pauseAll(): void {
    this.isPaused = true
    for (const { connections } of this.watchedCredentials.values()) {
      for (const { writer } of connections) writer.pause()
    }
  }

  private resumeAll(): void {
    this.isPaused = false
    for (const { connections } of this.watchedCredentials.values()) {
      for (const { writer } of connections) writer.resume()
    }
  }
}
