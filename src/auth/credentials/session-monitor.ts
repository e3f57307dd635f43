import { Injectable, Logger, type OnModuleDestroy, type OnModuleInit } from '@nestjs/common'
import { PubSubEngine } from 'graphql-subscriptions'
import { Database } from '../../database/database.ts'
import type { Connection } from '../../live/connection.ts'
import { CoalescedTask } from '../../runtime/coalesced-task.ts'
import { areRightsEqual } from '../rights.ts'
import type { Identity } from './authenticator.ts'
import { ACCESS_TOPIC, CredentialStore } from './credential-store.ts'

/** graphql-ws's own numbers: to its client the first is final, and after the second it comes back. */
export const CLOSE_UNAUTHENTICATED = 4401
export const CLOSE_FORBIDDEN = 4403

const SESSION_ENDED_REASON = 'Your token or session has ended; sign in again, or come with a new token'
const RIGHTS_CHANGED_REASON = 'What you may do has changed; come back with your cursor'

const SECOND_MS = 1_000
/** All credentials in use are looked at so often, whether or not anybody has said that they changed. */
const CHECK_INTERVAL_SECONDS = 5
/** After so long without an answer nobody is told anything new. Together with the next look well below 30 seconds. */
const MAX_STALE_MS = 20_000

interface WatchedCredential {
  identity: Identity
  connections: Set<Connection>
}

/**
 * Sees to it that nobody is told anything for longer than their token or session allows, on sockets that are open for
 * days. Each credential is looked at once for all sockets that came with it.
 *
 *   valid ──expired, revoked──> closed with 4401: sign in again
 *     │ └──other rights───────> closed with 4403: come back, and get what you may see now
 *     └──no answer for 20 s───> held: nothing is written until there is one
 */
@Injectable()
export class SessionMonitor implements OnModuleInit, OnModuleDestroy {
  private readonly logger = new Logger(SessionMonitor.name)
  private readonly credentialStore: CredentialStore
  private readonly watchedCredentials = new Map<string, WatchedCredential>()
  private subscription: number | undefined
  private timer: NodeJS.Timeout | undefined
  private second = 0
  private confirmedAt = performance.now()
  private isPaused = false
  private readonly checkTask = new CoalescedTask(
    () => this.checkNow(),
    (error) =>
      this.logger.warn('Could not look whether tokens and sessions are still valid; looking again soon', {
        error,
      }),
  )

  constructor(
    database: Database,
    private readonly pubSub: PubSubEngine,
  ) {
    this.credentialStore = new CredentialStore(database)
  }

  async onModuleInit(): Promise<void> {
    this.subscription = await this.pubSub.subscribe(ACCESS_TOPIC, () => this.check(), {})
    this.timer = setInterval(() => this.tick(), SECOND_MS)
  }

  async onModuleDestroy(): Promise<void> {
    clearInterval(this.timer)
    if (this.subscription !== undefined) this.pubSub.unsubscribe(this.subscription)
    await this.checkTask.idle()
  }

  /** A connection of which it has just been looked who it is. */
  watch(connection: Connection, identity: Identity): void {
    connection.identity = identity
    const { credential } = identity
    if (!credential) return
    if (this.watchedCredentials.size === 0) this.confirmedAt = performance.now()
    const before = this.watchedCredentials.get(credential.id)
    if (before && areRightsEqual(before.identity.subject.rights, identity.subject.rights)) {
      connection.identity = before.identity
      before.connections.add(connection)
    } else {
      // Others have come with it before it was changed.
      this.closeConnections(credential.id, CLOSE_FORBIDDEN, RIGHTS_CHANGED_REASON)
      this.watchedCredentials.set(credential.id, { identity, connections: new Set([connection]) })
    }
  }

  /** The same subject with another token: what it may see must be what its subscriptions were given. */
  renew(connection: Connection, identity: Identity): void {
    const before = connection.identity
    this.unwatch(connection)
    this.watch(connection, identity)
    if (before && !areRightsEqual(before.subject.rights, identity.subject.rights)) {
      void connection.closeAndWait(CLOSE_FORBIDDEN, RIGHTS_CHANGED_REASON)
    }
  }

  unwatch(connection: Connection): void {
    const id = connection.identity?.credential?.id
    const watched = id === undefined ? undefined : this.watchedCredentials.get(id)
    watched?.connections.delete(connection)
    if (id !== undefined && watched?.connections.size === 0) this.watchedCredentials.delete(id)
  }

  /** Looks at all credentials in use; several calls at once share one look, and one more follows for the latecomers. */
  check(): void {
    this.checkTask.run()
  }

  private tick(): void {
    this.second = (this.second + 1) % CHECK_INTERVAL_SECONDS
    if (this.second === 0 || this.isPaused || this.hasExpired()) this.check()
    if (this.watchedCredentials.size > 0 && performance.now() - this.confirmedAt > MAX_STALE_MS)
      this.pauseAll()
  }

  /** Whether one should have expired. Whether it has is said by the database: our clock may be wrong, or jump. */
  private hasExpired(): boolean {
    const now = Date.now()
    for (const { identity } of this.watchedCredentials.values()) {
      if (identity.credential && identity.credential.expiresAt.getTime() <= now) return true
    }
    return false
  }

  private async checkNow(): Promise<void> {
    const ids = [...this.watchedCredentials.keys()]
    const beganAt = performance.now()
    if (ids.length > 0) {
      const valid = await this.credentialStore.findValid(ids)
      for (const id of ids) {
        const credential = valid.get(id)
        const rights = this.watchedCredentials.get(id)?.identity.subject.rights
        if (!credential) this.closeConnections(id, CLOSE_UNAUTHENTICATED, SESSION_ENDED_REASON)
        else if (rights && !areRightsEqual(rights, credential.subject.rights))
          this.closeConnections(id, CLOSE_FORBIDDEN, RIGHTS_CHANGED_REASON)
      }
    }
    this.confirmedAt = beganAt
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
