import { Field, GraphQLISODateTime, ID, ObjectType, registerEnumType } from '@nestjs/graphql'
import type { Role } from '../config/grants.ts'
import { PageInfo } from '../graphql/paging.ts'
import { AUDIT_ACTIONS, type AuditAction } from './audit-log.ts'
import { SUBJECT_KINDS, type SubjectKind } from './rights.ts'

export const RoleEnum = { VIEWER: 'viewer', DEPLOYER: 'deployer', ADMIN: 'admin' } as const satisfies Record<
  string,
  Role
>

registerEnumType(RoleEnum, {
  name: 'Role',
  description: 'What somebody may do, in the organizations that they are bound to.',
  valuesMap: {
    VIEWER: { description: 'Sees deployments.' },
    DEPLOYER: { description: 'Also deploys, and cancels and retries what they requested themselves.' },
    ADMIN: { description: 'All, everywhere; and reads the audit log.' },
  },
})

export const SubjectKindEnum = Object.fromEntries(SUBJECT_KINDS.map((kind) => [kind, kind]))

registerEnumType(SubjectKindEnum, {
  name: 'SubjectKind',
  description:
    'Whether a subject is a person or a service. The name alone does not say: people choose theirs.',
  valuesMap: {
    PERSON: { description: 'A person who signed in.' },
    SERVICE: { description: 'A service with a token.' },
    LOCAL: { description: 'Everyone on this machine, where access is not configured.' },
    COMMAND: { description: 'A command on the server, `npm run token`.' },
  },
})

@ObjectType({ description: 'Who asks, and what they may do.' })
export class Me {
  @Field({ description: 'As `Deployment.requestedBy` has it.' })
  name!: string

  @Field(() => SubjectKindEnum, { description: 'The same as in `Deployment.requestedByKind`.' })
  kind!: SubjectKind

  @Field(() => RoleEnum, { description: 'The highest of their roles.' })
  role!: Role

  @Field(() => [String], {
    nullable: true,
    description: 'The organizations whose deployments they see, in small letters; null: every one.',
  })
  sees!: string[] | null

  @Field(() => [String], {
    nullable: true,
    description: 'The organizations that they deploy to, in small letters; null: every one.',
  })
  deploysTo!: string[] | null

  @Field({ description: 'Whether they have signed in with a browser, and so may sign out.' })
  isSignedIn!: boolean

  @Field(() => GraphQLISODateTime, {
    nullable: true,
    description: 'When their token or session ends; null where everybody on this machine is let in.',
  })
  expiresAt!: Date | null
}

export const AuditActionEnum = Object.fromEntries(AUDIT_ACTIONS.map((action) => [action, action]))

registerEnumType(AuditActionEnum, {
  name: 'AuditAction',
  description: 'What was done, or tried.',
  valuesMap: {
    AUTHENTICATE: {
      description: 'Somebody came with a token or session that is not valid. Only refusals are noted.',
    },
    SIGN_IN: { description: 'A person came back from a provider.' },
    SIGN_OUT: { description: 'A person ended their session.' },
    DEPLOY: { description: 'The mutation `deploy`; `target` is the repository.' },
    CANCEL: { description: 'The mutation `cancelDeployment`.' },
    RETRY: { description: 'The mutation `retryDeployment`.' },
    TOKEN_CREATE: { description: 'A token was made; `target` is its name.' },
    TOKEN_CHANGE: { description: 'What a token may do was changed.' },
    TOKEN_REVOKE: { description: 'A token was ended.' },
  },
})

@ObjectType({
  description:
    'Who did what, when, from where, and what came of it. Nothing of it is ever changed or removed.',
})
export class AuditEntry {
  @Field(() => ID, { description: 'A UUID; later entries have greater ids.' })
  id!: string

  @Field(() => GraphQLISODateTime, { description: 'When, by the clock of the database.' })
  at!: Date

  @Field(() => AuditActionEnum, { description: 'What was done, or tried.' })
  action!: AuditAction

  @Field(() => String, { nullable: true, description: 'Who did it, by name; null: nobody knows.' })
  subject!: string | null

  @Field(() => SubjectKindEnum, {
    nullable: true,
    description: 'Null where the subject is unknown.',
  })
  subjectKind!: SubjectKind | null

  @Field(() => String, { nullable: true, description: 'Who did it; the same under another name.' })
  subjectId!: string | null

  @Field(() => String, {
    nullable: true,
    description: 'The network address that it came from; null: a command on the server.',
  })
  address!: string | null

  @Field(() => String, {
    nullable: true,
    description:
      'What it was done to: `acme/hello`, the name of a token, a way to sign in. In double quotes, with escapes, where it cannot be such a name.',
  })
  target!: string | null

  @Field(() => ID, { nullable: true, description: 'The deployment that it was about.' })
  deploymentId!: string | null

  @Field({ description: '`OK`, or the code of the error that it ended with.' })
  result!: string
}

@ObjectType({ description: 'An entry of the audit log, and where to go on behind it.' })
export class AuditEdge {
  @Field({ description: '`auditLog(after: …)` goes on behind it.' })
  cursor!: string

  @Field(() => AuditEntry, { description: 'The entry.' })
  node!: AuditEntry
}

@ObjectType({ description: 'Entries of the audit log, newest first.' })
export class AuditConnection {
  @Field(() => [AuditEdge], { description: 'One for each entry.' })
  edges!: AuditEdge[]

  @Field(() => PageInfo, { description: 'Whether there are more.' })
  pageInfo!: PageInfo
}
