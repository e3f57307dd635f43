import { isIP } from 'node:net'
import { v7 as uuidv7 } from 'uuid'
import type { Queryable } from '../database/statement.ts'
import { quote } from '../errors.ts'
import type { Subject } from './rights.ts'

export const AUDIT_ACTIONS = [
  'DEPLOY',
  'CANCEL',
  'RETRY',
  'TOKEN_CREATE',
  'TOKEN_CHANGE',
  'TOKEN_REVOKE',
  'SIGN_IN',
  'SIGN_OUT',
  'AUTHENTICATE',
] as const
export type AuditAction = (typeof AUDIT_ACTIONS)[number]

/** Who did what, when, from where, and with what result. Contains no secrets. */
export interface AuditEntry {
  action: AuditAction
  /** Null: not authenticated. */
  subject: Pick<Subject, 'id' | 'name'> | null
  /** The network address of the request; null: a command on the server itself. */
  address: string | null
  /** `acme/hello`, a token name, a sign-in provider. Any other text is stored quoted. */
  target: string | null
  deploymentId?: string | undefined
  /** `OK`, or the code of the error. */
  result: string
}

interface StoredAuditEntry {
  id: string
  at: Date
  action: AuditAction
  subjectId: string | null
  subject: string | null
  address: string | null
  target: string | null
  deploymentId: string | null
  result: string
}

/** A repository, a token name, a provider, or the id of a deployment. */
const TARGET_PATTERN = /^[A-Za-z0-9._@/-]{1,200}$/

/** Adds an entry, in the transaction of the action if it has one. A trigger refuses changes and deletions. */
export async function appendAuditEntry(database: Queryable, entry: AuditEntry): Promise<void> {
  const { action, subject, address, target, deploymentId, result } = entry
  await database.query(
    `insert into audit_log (id, at, action, subject_id, subject, address, target, deployment_id, result)
     values ($1, clock_timestamp(), $2, $3, $4, $5, $6, $7, $8)`,
    [
      uuidv7(),
      action,
      subject?.id ?? null,
      subject?.name ?? null,
      // A proxy may send something other than an address.
      address === null || isIP(address) ? address : quote(address),
      target === null || TARGET_PATTERN.test(target) ? target : quote(target),
      deploymentId ?? null,
      result,
    ],
  )
}

/** Entries older than `before`, newest first. */
export function readAuditEntries(
  database: Queryable,
  page: { limit: number; before: string | null; subject: string | null; action: AuditAction | null },
): Promise<StoredAuditEntry[]> {
  return database.query<StoredAuditEntry>(
    `select id, at, action, subject_id as "subjectId", subject, address, target, deployment_id as "deploymentId", result
     from audit_log
     where ($2::uuid is null or id < $2) and ($3::text is null or subject = $3) and ($4::text is null or action = $4)
     order by id desc limit $1`,
    [page.limit, page.before, page.subject, page.action],
  )
}
