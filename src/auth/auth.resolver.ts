import { UseFilters } from '@nestjs/common'
import { Args, Context, Int, Query, Resolver } from '@nestjs/graphql'
import { Database } from '../database/database.ts'
import { ForbiddenError } from '../errors.ts'
import { PassThroughErrorsFilter } from '../graphql/client-errors.ts'
import { connectionOf, parsePaging } from '../graphql/paging.ts'
import { type AuditAction, readAuditEntries } from './audit-log.ts'
import { AuditActionEnum, AuditConnection, Me } from './auth.model.ts'
import { OpaqueSubjectIds } from './opaque-subject-ids.ts'
import type { RequestContext } from './request-context.ts'
import { type Organizations, subjectKind } from './rights.ts'

const MAX_ENTRIES = 500

/** Who asks, and for admins: who did what. */
@UseFilters(PassThroughErrorsFilter)
@Resolver()
export class AuthResolver {
  constructor(
    private readonly database: Database,
    private readonly opaqueIds: OpaqueSubjectIds,
  ) {}

  @Query(() => Me, { description: 'Who asks, and what they may do.' })
  me(@Context() { subject, credential }: RequestContext): Me {
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

  @Query(() => AuditConnection, { description: 'Who did what, newest first. For admins.' })
  async auditLog(
    @Args('first', { type: () => Int, nullable: true, defaultValue: 50, description: 'At most 500.' })
    first: number | null,
    @Args('after', { type: () => String, nullable: true, description: 'Those behind this one.' }) after:
      | string
      | null,
    @Args('subject', { type: () => String, nullable: true, description: 'Only by whoever has this name.' })
    subject: string | null,
    @Args('action', { type: () => AuditActionEnum, nullable: true, description: 'Only these.' })
    action: AuditAction | null,
    @Context() context: RequestContext,
  ): Promise<AuditConnection> {
    if (context.subject.rights.role !== 'admin') {
      throw new ForbiddenError('The audit log is for admins. Ask one, or use the token of one.')
    }
    const paging = parsePaging(first ?? 50, after ?? null, MAX_ENTRIES)
    // To Postgres such a text is an error; nobody has that name.
    if (subject?.includes('\0')) return connectionOf([], paging)
    const found = await readAuditEntries(this.database, {
      limit: paging.limit + 1,
      before: paging.before,
      subject: subject ?? null,
      action: action ?? null,
    })
    const entries = found.map((entry) => ({
      ...entry,
      subjectKind: entry.subjectId === null ? null : subjectKind(entry.subjectId),
    }))
    return connectionOf(entries, paging)
  }
}

function nullIfAll(organizations: Organizations): string[] | null {
  return organizations === 'all' ? null : [...organizations]
}
