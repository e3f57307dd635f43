import { createHash, randomBytes } from 'node:crypto'
import { Inject, Injectable } from '@nestjs/common'
import { v7 as uuidv7 } from 'uuid'
import type { Grant } from '../../config/grants.ts'
import { Database } from '../../database/database.ts'
import type { Queryable } from '../../database/statement.ts'
import { rightsOf, type Subject } from '../rights.ts'

type CredentialKind = 'token' | 'session'

/** Proves the identity of a request: a service's token, or a browser's session. */
export interface Credential {
  id: string
  kind: CredentialKind
  subject: Subject
  expiresAt: Date
}

interface NewCredential {
  kind: CredentialKind
  subjectId: string
  name: string
  grants: readonly Grant[]
  lifetimeMs: number
}

/** A line of `npm run token -- list`. */
export interface ListedToken {
  id: string
  name: string
  grants: Grant[]
  createdAt: Date
  expiresAt: Date
  revokedAt: Date | null
  lastUsedAt: Date | null
}

interface CredentialRow {
  id: string
  kind: CredentialKind
  subjectId: string
  name: string
  grants: Grant[]
  expiresAt: Date
}

const COLUMNS = 'id, kind, subject_id as "subjectId", name, grants, expires_at as "expiresAt"'
const SECRET_PREFIX: Record<CredentialKind, string> = { token: 'shipcast_', session: '' }
const SECRET_BYTES = 32
/** 32 bytes as base64url, RFC 4648. */
const SECRET_PATTERN = /^(shipcast_)?[A-Za-z0-9_-]{43}$/
/** The resolution of `last_used_at`, so that most lookups only read. */
const LAST_USED_RESOLUTION_SECONDS = 60

/**
 * Tokens and sessions. Only a SHA-256 hash of the secret is stored: 256 random bits need no slow hash, and
 * the lookup by hash leaks nothing through its timing.
 */
@Injectable()
export class CredentialStore {
  /** @param database the database, or a transaction of it */
  constructor(@Inject(Database) private readonly database: Queryable) {}

  /** Returns the secret, which is not stored. */
  async create(credential: NewCredential): Promise<{ id: string; secret: string; expiresAt: Date }> {
    const { kind, subjectId, name, grants, lifetimeMs } = credential
    const secret = SECRET_PREFIX[kind] + randomBytes(SECRET_BYTES).toString('base64url')
    const [row] = await this.database.query<{ id: string; expiresAt: Date }>(
      `insert into access_credentials (id, kind, secret_hash, subject_id, name, grants, created_at, expires_at)
       values ($1, $2, $3, $4, $5, $6, clock_timestamp(), clock_timestamp() + $7 * interval '1 ms')
       returning id, expires_at as "expiresAt"`,
      [uuidv7(), kind, hashSecret(secret), subjectId, name, JSON.stringify(grants), lifetimeMs],
    )
    if (!row) throw new Error('An insert returned no row.')
    return { ...row, secret }
  }

  /** Finds a valid credential, and updates when it was last used. */
  async find(secret: string): Promise<Credential | undefined> {
    if (!SECRET_PATTERN.test(secret)) return undefined
    const [row] = await this.database.query<CredentialRow & { isUseRecorded: boolean }>(
      `select ${COLUMNS}, coalesce(last_used_at > clock_timestamp() - $2 * interval '1 s', false) as "isUseRecorded"
       from access_credentials
       where secret_hash = $1 and revoked_at is null and expires_at > clock_timestamp()`,
      [hashSecret(secret), LAST_USED_RESOLUTION_SECONDS],
    )
    if (!row) return undefined
    if (!row.isUseRecorded) {
      await this.database.query(
        'update access_credentials set last_used_at = clock_timestamp() where id = $1',
        [row.id],
      )
    }
    return toCredential(row)
  }

  /** The credentials of `ids` that are still valid. */
  async findValid(ids: readonly string[]): Promise<Map<string, Credential>> {
    const rows = await this.database.query<CredentialRow>(
      `select ${COLUMNS} from access_credentials
       where id = any($1) and revoked_at is null and expires_at > clock_timestamp()`,
      [ids],
    )
    return new Map(rows.map((row) => [row.id, toCredential(row)]))
  }

  /** Oldest first, including expired and revoked ones. */
  listTokens(): Promise<ListedToken[]> {
    return this.database.query<ListedToken>(
      `select id, name, grants, created_at as "createdAt", expires_at as "expiresAt", revoked_at as "revokedAt",
         last_used_at as "lastUsedAt"
       from access_credentials where kind = 'token' order by id`,
    )
  }

  /** Whether a token has or had this name, ignoring case. */
  async isTokenName(name: string): Promise<boolean> {
    const tokens = await this.database.query(
      `select from access_credentials where kind = 'token' and lower(name) = $1 limit 1`,
      [name.toLowerCase()],
    )
    return tokens.length > 0
  }

  /** Revokes the tokens with this name, or the one with this id. Returns those it revoked. */
  revokeTokens(nameOrId: string): Promise<{ id: string; name: string }[]> {
    return this.database.query(
      `update access_credentials set revoked_at = clock_timestamp()
       where kind = 'token' and (name = $1 or id::text = lower($1)) and revoked_at is null
       returning id, name`,
      [nameOrId],
    )
  }

  /** Replaces the grants of the valid tokens with this name. Returns those it changed. */
  updateTokenGrants(name: string, grants: readonly Grant[]): Promise<{ id: string }[]> {
    return this.database.query(
      `update access_credentials set grants = $2
       where kind = 'token' and name = $1 and revoked_at is null and expires_at > clock_timestamp()
       returning id`,
      [name, JSON.stringify(grants)],
    )
  }

  /** Replaces the grants of all sessions of a person. */
  async updateSessionGrants(subjectId: string, grants: readonly Grant[]): Promise<void> {
    await this.database.query(
      `update access_credentials set grants = $2
       where kind = 'session' and subject_id = $1 and revoked_at is null and grants <> $2`,
      [subjectId, JSON.stringify(grants)],
    )
  }

  /** Revokes a browser's previous session if it belongs to another person. */
  async revokeSessionOfOtherSubject(id: string, subjectId: string): Promise<void> {
    await this.database.query(
      `update access_credentials set revoked_at = clock_timestamp()
       where kind = 'session' and id = $1 and subject_id <> $2 and revoked_at is null`,
      [id, subjectId],
    )
  }

  async revokeSession(id: string): Promise<void> {
    await this.database.query(
      `update access_credentials set revoked_at = clock_timestamp()
       where kind = 'session' and id = $1 and revoked_at is null`,
      [id],
    )
  }

  /** Revokes all sessions of a person. */
  async revokeSessionsOfSubject(subjectId: string): Promise<void> {
    await this.database.query(
      `update access_credentials set revoked_at = clock_timestamp()
       where kind = 'session' and subject_id = $1 and revoked_at is null`,
      [subjectId],
    )
  }

  /** Deletes sessions that ended more than a day ago. */
  async deleteEndedSessions(limit: number): Promise<void> {
    await this.database.query(
      `delete from access_credentials where id in (
         select id from access_credentials
         where kind = 'session' and least(expires_at, revoked_at) < clock_timestamp() - interval '1 day'
         limit $1 for update skip locked
       )`,
      [limit],
    )
  }
}

function toCredential({ id, kind, subjectId, name, grants, expiresAt }: CredentialRow): Credential {
  return { id, kind, subject: { id: subjectId, name, rights: rightsOf(grants) }, expiresAt }
}

export function hashSecret(secret: string): Buffer {
  return createHash('sha256').update(secret).digest()
}

/** The PubSub topic for changed or revoked tokens and sessions. */
export const ACCESS_TOPIC = 'access'
