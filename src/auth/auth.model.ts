import { Field, GraphQLISODateTime, ID, ObjectType, registerEnumType } from '@nestjs/graphql'
import type { Role } from '../config/grants.ts'
import { PageInfo } from '../graphql/paging.ts'
import { AUDIT_ACTIONS, type AuditAction } from './audit-log.ts'
import { SUBJECT_KINDS, type SubjectKind } from './rights.ts'

const RoleEnum = { VIEWER: 'viewer', DEPLOYER: 'deployer', ADMIN: 'admin' } as const satisfies Record<
  string,
  Role
>

registerEnumType(RoleEnum, {
  name: 'Role',
  description: 'What a subject can do in the organizations that its role applies to.',
  valuesMap: {
    VIEWER: { description: 'Sees deployments.' },
    DEPLOYER: { description: 'Also deploys, and cancels and retries its own deployments.' },
    ADMIN: { description: 'Can do everything in every organization, and reads the audit log.' },
  },
})

export const SubjectKindEnum = Object.fromEntries(SUBJECT_KINDS.map((kind) => [kind, kind]))

registerEnumType(SubjectKindEnum, {
  name: 'SubjectKind',
  description:
    'Whether a subject is a person or a service. The name does not reveal it, because people choose their own.',
  valuesMap: {
    PERSON: { description: 'A person who signed in.' },
    SERVICE: { description: 'A service with a token.' },
    LOCAL: { description: 'Anyone on this machine, where access is not configured.' },
    COMMAND: { description: 'The command `npm run token` on the server.' },
  },
})

@ObjectType({ description: 'The subject of the request, and its rights.' })
export class Me {
  @Field(() => ID, { description: 'Same as `Deployment.requestedById`. Opaque.' })
  id!: string

  @Field({ description: 'Same as `Deployment.requestedBy`.' })
  name!: string

  @Field(() => SubjectKindEnum, { description: 'Same as `Deployment.requestedByKind`.' })
  kind!: SubjectKind

  @Field(() => RoleEnum, { description: "The highest of the subject's roles." })
  role!: Role

  @Field(() => [String], {
    nullable: true,
    description: 'The organizations whose deployments the subject sees, in lower case; null: all.',
  })
  sees!: string[] | null

  @Field(() => [String], {
    nullable: true,
    description: 'The organizations that the subject can deploy to, in lower case; null: all.',
  })
  deploysTo!: string[] | null

  @Field({ description: 'Whether the request carries a browser session, which can sign out.' })
  isSignedIn!: boolean

  @Field(() => GraphQLISODateTime, {
    nullable: true,
    description: 'When the token or session expires; null where access is not configured.',
  })
  expiresAt!: Date | null
}

export const AuditActionEnum = Object.fromEntries(AUDIT_ACTIONS.map((action) => [action, action]))

registerEnumType(AuditActionEnum, {
  name: 'AuditAction',
  description: 'An action, whether or not it succeeded.',
  valuesMap: {
    AUTHENTICATE: {
      description: 'A request with an invalid token or session. Only failures are recorded.',
    },
    SIGN_IN: { description: 'A person returned from a sign-in provider.' },
    SIGN_OUT: { description: 'A person ended their session.' },
    DEPLOY: { description: 'The mutation `deploy`; `target` is the repository.' },
    CANCEL: { description: 'The mutation `cancelDeployment`.' },
    RETRY: { description: 'The mutation `retryDeployment`.' },
    TOKEN_CREATE: { description: 'A token was created; `target` is its name.' },
    TOKEN_CHANGE: { description: 'The role of a token was changed.' },
    TOKEN_REVOKE: { description: 'A token was revoked.' },
  },
})

@ObjectType({
  description: 'Who did what, when, from where, and with what result. Entries are never changed or removed.',
})
export class AuditEntry {
  @Field(() => ID, { description: 'A UUID; later entries have greater ids.' })
  id!: string

  @Field(() => GraphQLISODateTime, { description: 'The time of the action, by the clock of the database.' })
  at!: Date

  @Field(() => AuditActionEnum, { description: 'An action, whether or not it succeeded.' })
  action!: AuditAction

  @Field(() => String, { nullable: true, description: 'The name of the subject; null: not authenticated.' })
  subject!: string | null

  @Field(() => SubjectKindEnum, {
    nullable: true,
    description: 'The kind of the subject; null: not authenticated.',
  })
  subjectKind!: SubjectKind | null

  @Field(() => String, {
    nullable: true,
    description: 'The id of the subject, which stays the same if its name changes.',
  })
  subjectId!: string | null

  @Field(() => String, {
    nullable: true,
    description: 'The network address of the request; null: a command on the server.',
  })
  address!: string | null

  @Field(() => String, {
    nullable: true,
    description:
      'The object of the action: `acme/hello`, a token name, a sign-in provider. Any other text is in double quotes, with escapes.',
  })
  target!: string | null

  @Field(() => ID, { nullable: true, description: 'The deployment that the action concerned.' })
  deploymentId!: string | null

  @Field({ description: '`OK`, or the code of the error.' })
  result!: string
}

@ObjectType({ description: 'An entry of the audit log, with its cursor.' })
class AuditEdge {
  @Field({ description: 'Pass it as `after` to get the entries that follow.' })
  cursor!: string

  @Field(() => AuditEntry, { description: 'The entry.' })
  node!: AuditEntry
}

@ObjectType({ description: 'Entries of the audit log, newest first.' })
export class AuditConnection {
  @Field(() => [AuditEdge], { description: 'The entries of this page.' })
  edges!: AuditEdge[]

  @Field(() => PageInfo, { description: 'Whether more entries follow.' })
  pageInfo!: PageInfo
}
