import { UseFilters } from '@nestjs/common'
import { Args, Int, Query, Resolver } from '@nestjs/graphql'
import { Database } from '../database/database.ts'
import { PassThroughErrorsFilter } from '../graphql/error-formatting.ts'
import { connectionOf, parsePaging } from '../graphql/paging.ts'
import { type AuditAction, readAuditEntries } from './audit-log.ts'
import { RequireRole } from './auth.guard.ts'
import { AuditActionEnum, AuditConnection, Me } from './auth.model.ts'
import { OpaqueSubjectIds } from './opaque-subject-ids.ts'
import { Auth, type Principal } from './principal.ts'
import { type Organizations, subjectKind } from './rights.ts'

const MAX_ENTRIES = 500

/** The subject of a request, and the audit log. */
@UseFilters(PassThroughErrorsFilter)
@Resolver()
export class AuthResolver {
  constructor(
    private readonly database: Database,
    private readonly opaqueIds: OpaqueSubjectIds,
  ) {}

  @Query(() => Me, { description: 'The subject of the request, and its rights.' })
  me(@Auth() { subject, credential }: Principal): Me {
    const { role, sees, deploysTo } = subject.rights
    return {
      id: this.opaqueIds.of(subject.id),
      name: subject.name,
      kind: subjectKind(subject.id),
      role,
      sees: nullIfAll(sees),
      deploysTo: nullIfAll(deploysTo),
      isSignedIn: credential?.kind === 'session',
      expiresAt: credential?.expiresAt ?? null,
    }
  }

  @RequireRole('admin')
  @Query(() => AuditConnection, { description: 'The audit log, newest first. Requires the role `ADMIN`.' })
  async auditLog(
    @Args('first', { type: () => Int, nullable: true, defaultValue: 50, description: 'At most 500.' })
    first: number | null,
    @Args('after', { type: () => String, nullable: true, description: 'Entries after this cursor.' }) after:
      | string
      | null,
    @Args('subject', {
      type: () => String,
      nullable: true,
      description: 'Only entries of the subject with this name.',
    })
    subject: string | null,
    @Args('action', {
      type: () => AuditActionEnum,
      nullable: true,
      description: 'Only entries with this action.',
    })
    action: AuditAction | null,
  ): Promise<AuditConnection> {
    const paging = parsePaging(first ?? 50, after ?? null, MAX_ENTRIES)
    // PostgreSQL rejects NUL in text, and no name contains it.
    if (subject?.includes('\0')) return connectionOf([], paging)
    const rows = await readAuditEntries(this.database, {
      limit: paging.limit + 1,
      before: paging.before,
      subject: subject ?? null,
      action: action ?? null,
    })
    const entries = rows.map((entry) => ({
      ...entry,
      subjectKind: entry.subjectId === null ? null : subjectKind(entry.subjectId),
    }))
    return connectionOf(entries, paging)
  }
}

function nullIfAll(organizations: Organizations): string[] | null {
  return organizations === 'all' ? null : [...organizations]
}
