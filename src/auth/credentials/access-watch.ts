import { Injectable, Logger, type OnModuleDestroy, type OnModuleInit } from '@nestjs/common'
import { PubSubEngine } from 'graphql-subscriptions'
import { Database } from '../../database/database.ts'
import type { Connection } from '../../live/connection.ts'
import { SharedLook } from '../../runtime/shared-look.ts'
import { isSameRights } from '../rights.ts'
import type { Identity } from './authenticator.ts'
import { ACCESS_TOPIC, CredentialStore } from './credential-store.ts'

/** graphql-ws's own numbers: to its client the first is final, and after the second it comes back. */
export const UNAUTHENTICATED = 4401
export const FORBIDDEN = 4403

const ENDED = 'Your token or session has ended; sign in again, or come with a new token'
const CHANGED = 'What you may do has changed; come back with your cursor'

const SECOND_MS = 1_000
/** All credentials in use are looked at so often, whether or not anybody has said that they changed. */
const LOOK_SECONDS = 5
/** After so long without an answer nobody is told anything new. Together with the next look well below 30 seconds. */
const MOST_DOUBT_MS = 20_000

interface Watched {
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
export class AccessWatch implements OnModuleInit, OnModuleDestroy {
  private readonly logger = new Logger(AccessWatch.name)
  private readonly credentials: CredentialStore
  private readonly watched = new Map<string, Watched>()
  private subscription: number | undefined
  private everySecond: NodeJS.Timeout | undefined
  private second = 0
  private confirmedAt = performance.now()
  private isHolding = false
  private readonly shared = new SharedLook(
    () => this.lookNow(),
    (error) =>
      this.logger.warn('Could not look whether tokens and sessions are still valid; looking again soon', {
        error,
      }),
  )

  constructor(
    database: Database,
    private readonly pubSub: PubSubEngine,
  ) {
    this.credentials = new CredentialStore(database)
  }

  async onModuleInit(): Promise<void> {
    this.subscription = await this.pubSub.subscribe(ACCESS_TOPIC, () => this.look(), {})
    this.everySecond = setInterval(() => this.tick(), SECOND_MS)
  }

  async onModuleDestroy(): Promise<void> {
    clearInterval(this.everySecond)
    if (this.subscription !== undefined) this.pubSub.unsubscribe(this.subscription)
    await this.shared.ended()
  }

  /** A connection of which it has just been looked who it is. */
  join(connection: Connection, identity: Identity): void {
    connection.identity = identity
    const { credential } = identity
    if (!credential) return
    if (this.watched.size === 0) this.confirmedAt = performance.now()
    const before = this.watched.get(credential.id)
    if (before && isSameRights(before.identity.subject.rights, identity.subject.rights)) {
      connection.identity = before.identity
      before.connections.add(connection)
    } else {
      // Others have come with it before it was changed.
      this.end(credential.id, FORBIDDEN, CHANGED)
      this.watched.set(credential.id, { identity, connections: new Set([connection]) })
    }
  }

  /** The same subject with another token: what it may see must be what its subscriptions were given. */
  renew(connection: Connection, identity: Identity): void {
    const before = connection.identity
    this.leave(connection)
    this.join(connection, identity)
    if (before && !isSameRights(before.subject.rights, identity.subject.rights)) {
      void connection.end(FORBIDDEN, CHANGED)
    }
  }

  leave(connection: Connection): void {
    const id = connection.identity?.credential?.id
    const watched = id === undefined ? undefined : this.watched.get(id)
    watched?.connections.delete(connection)
    if (id !== undefined && watched?.connections.size === 0) this.watched.delete(id)
  }

  /** Looks at all credentials in use; several calls at once share one look, and one more follows for the latecomers. */
  look(): void {
    this.shared.begin()
  }

  private tick(): void {
    this.second = (this.second + 1) % LOOK_SECONDS
    if (this.second === 0 || this.isHolding || this.hasDue()) this.look()
    if (this.watched.size > 0 && performance.now() - this.confirmedAt > MOST_DOUBT_MS) this.holdAll()
  }

  /** Whether one should have expired. Whether it has is said by the database: our clock may be wrong, or jump. */
  private hasDue(): boolean {
    const now = Date.now()
    for (const { identity } of this.watched.values()) {
      if (identity.credential && identity.credential.expiresAt.getTime() <= now) return true
    }
    return false
  }

  private async lookNow(): Promise<void> {
    const ids = [...this.watched.keys()]
    const beganAt = performance.now()
    if (ids.length > 0) {
      const valid = await this.credentials.findValid(ids)
      for (const id of ids) {
        const credential = valid.get(id)
        const rights = this.watched.get(id)?.identity.subject.rights
        if (!credential) this.end(id, UNAUTHENTICATED, ENDED)
        else if (rights && !isSameRights(rights, credential.subject.rights)) this.end(id, FORBIDDEN, CHANGED)
      }
    }
    this.confirmedAt = beganAt
    if (this.isHolding) this.releaseAll()
  }

  private end(id: string, code: number, reason: string): void {
    const connections = this.watched.get(id)?.connections ?? []
    this.watched.delete(id)
    for (const connection of connections) void connection.end(code, reason)
  }

  private holdAll(): void {
    this.isHolding = true
    for (const { connections } of this.watched.values()) {
      for (const { writer } of connections) writer.hold()
    }
  }

  private releaseAll(): void {
    this.isHolding = false
    for (const { connections } of this.watched.values()) {
      for (const { writer } of connections) writer.release()
    }
  }
}
