import { Field, GraphQLISODateTime, ID, Int, ObjectType, registerEnumType } from '@nestjs/graphql'
import { SubjectKindEnum } from '../auth/auth.model.ts'
import { type SubjectKind, subjectKind } from '../auth/rights.ts'
import type {
  DeploymentProblem,
  DeploymentSnapshot,
  DeploymentStatus,
  DeploymentStep,
  LoggedEvent,
} from '../events/deployment-event.ts'
import type { Visibility } from '../github/github-client.ts'
import { PageInfo } from '../graphql/paging.ts'

const DeploymentStepEnum = {
  DEPLOY: 'DEPLOY',
  CREATE_ORG: 'CREATE_ORG',
  CREATE_REPO: 'CREATE_REPO',
  PUSH_CONTENTS: 'PUSH_CONTENTS',
  DONE: 'DONE',
} as const satisfies { [Step in DeploymentStep]: Step }

registerEnumType(DeploymentStepEnum, {
  name: 'DeploymentStep',
  description: 'The last step that a deployment has reached.',
  valuesMap: {
    DEPLOY: { description: 'The deployment is accepted.' },
    CREATE_ORG: { description: 'The organization exists.' },
    CREATE_REPO: { description: 'The repository exists, but is empty.' },
    PUSH_CONTENTS: { description: 'The contents are on the branch.' },
    DONE: { description: 'The result was read back and verified.' },
  },
})

export const DeploymentStatusEnum = {
  QUEUED: 'QUEUED',
  RUNNING: 'RUNNING',
  WAITING: 'WAITING',
  SUCCEEDED: 'SUCCEEDED',
  FAILED: 'FAILED',
  CANCELLED: 'CANCELLED',
} as const satisfies { [Status in DeploymentStatus]: Status }

registerEnumType(DeploymentStatusEnum, {
  name: 'DeploymentStatus',
  description: 'The status of a deployment.',
  valuesMap: {
    QUEUED: {
      description:
        'All runners are busy; the deployment starts as soon as one is free. Organizations take turns; within an organization, deployments start in the order of their requests.',
    },
    RUNNING: { description: 'A runner is executing the deployment.' },
    WAITING: {
      description: 'The deployment waits for the forge and resumes automatically at `waitingUntil`.',
    },
    SUCCEEDED: { description: 'The repository exists with its contents.' },
    FAILED: { description: '`error` gives the reason, and whether `retryDeployment` can help.' },
    CANCELLED: { description: 'A user cancelled the deployment; `retryDeployment` resumes it.' },
  },
})

export const VisibilityEnum = { PUBLIC: 'PUBLIC', PRIVATE: 'PRIVATE' } as const satisfies {
  [Value in Visibility]: Value
}

registerEnumType(VisibilityEnum, {
  name: 'Visibility',
  description: 'Who can see the repository.',
  valuesMap: {
    PUBLIC: { description: 'Everyone.' },
    PRIVATE: { description: 'People who were granted access.' },
  },
})

@ObjectType({ description: 'The progress of the current step.' })
export class Progress {
  @Field(() => Int, { description: 'The amount done, in `unit`.' })
  done!: number

  @Field(() => Int, { description: 'The total amount, in `unit`.' })
  total!: number

  @Field({ description: 'The unit to display, such as "bytes".' })
  unit!: string
}

@ObjectType({ description: 'Why a deployment failed or is waiting.' })
class DeploymentError implements DeploymentProblem {
  @Field({ description: 'What went wrong, as an upper-case code that is stable across versions.' })
  code!: string

  @Field({ description: 'What went wrong and what to do about it, in one or two sentences.' })
  message!: string

  @Field({
    description: 'Whether `retryDeployment` can help, possibly after following the advice in `message`.',
  })
  retryable!: boolean

  @Field(() => DeploymentStepEnum, { description: 'The step that was being executed.' })
  step!: DeploymentStep
}

@ObjectType({ description: 'The deployment of one repository to the forge.' })
export class Deployment {
  @Field(() => ID, { description: 'A UUID; later deployments have greater ids.' })
  id!: string

  @Field({ description: 'The organization, as requested.' })
  org!: string

  @Field({ description: 'The name of the repository, as requested.' })
  repo!: string

  @Field(() => VisibilityEnum, { description: 'Who can see the repository.' })
  visibility!: Visibility

  @Field(() => String, { nullable: true, description: 'The description of the repository.' })
  description!: string | null

  @Field({ description: 'The branch that the contents are pushed to.' })
  branch!: string

  @Field(() => DeploymentStepEnum, { description: 'The last step reached.' })
  step!: DeploymentStep

  @Field(() => DeploymentStatusEnum, { description: 'The current status.' })
  status!: DeploymentStatus

  @Field({ description: 'What is happening now, as text to display.' })
  text!: string

  @Field(() => Int, { description: 'The sequence number of the latest event: 1, 2, 3 … without gaps.' })
  sequence!: number

  @Field(() => Int, { description: '1, plus 1 for each `retryDeployment`.' })
  attempt!: number

  @Field(() => Progress, {
    nullable: true,
    description: 'The progress of the current step, if it takes a while.',
  })
  progress!: Progress | null

  @Field(() => GraphQLISODateTime, {
    nullable: true,
    description: 'While `WAITING`: when the deployment resumes automatically.',
  })
  waitingUntil!: Date | null

  @Field(() => DeploymentError, { nullable: true, description: 'Why the deployment failed or is waiting.' })
  error!: DeploymentError | null

  @Field(() => String, {
    nullable: true,
    description: 'The URL of the repository page, once the repository exists.',
  })
  repositoryUrl!: string | null

  @Field(() => String, {
    nullable: true,
    description: 'The URL for `git clone`, once the repository exists.',
  })
  cloneUrl!: string | null

  @Field(() => String, {
    nullable: true,
    description: 'The commit with the contents, once pushed: 40 hex digits.',
  })
  commitSha!: string | null

  @Field(() => Int, { description: 'The number of files.' })
  fileCount!: number

  @Field(() => Int, { description: 'The total size of the files in bytes.' })
  sizeBytes!: number

  @Field(() => String, {
    nullable: true,
    description:
      'The name of the person or service that requested the deployment; `local` on a server without accounts.',
  })
  requestedBy!: string | null

  @Field(() => SubjectKindEnum, {
    nullable: true,
    description: 'The kind of subject that requested it. A person and a service can have the same name.',
  })
  requestedByKind!: SubjectKind | null

  /** Not a field: clients see `requestedById`. */
  requestedBySubjectId!: string | null

  @Field(() => [String], {
    description:
      'Problems with the contents that did not prevent the deployment: names that Windows or macOS cannot check out. At most 20, one sentence each.',
  })
  warnings!: string[]

  @Field(() => Int, {
    description: 'The total number of warnings, including those left out of `warnings`.',
  })
  warningCount!: number

  @Field(() => GraphQLISODateTime, { description: 'When the deployment was accepted.' })
  createdAt!: Date

  @Field(() => GraphQLISODateTime, { description: 'When the latest event happened.' })
  updatedAt!: Date

  @Field(() => GraphQLISODateTime, {
    nullable: true,
    description: 'When the deployment succeeded, failed or was cancelled.',
  })
  finishedAt!: Date | null
}

@ObjectType({ description: 'A deployment within a page.' })
export class DeploymentEdge {
  @Field({ description: 'The cursor for a page that begins after this item: `deployments(after: …)`.' })
  cursor!: string

  @Field(() => Deployment, { description: 'The deployment.' })
  node!: Deployment
}

@ObjectType({ description: 'A page of deployments, newest first (a Relay connection).' })
export class DeploymentConnection {
  @Field(() => [DeploymentEdge], { description: 'The items of the page.' })
  edges!: DeploymentEdge[]

  @Field(() => PageInfo, { description: 'Information for paging.' })
  pageInfo!: PageInfo
}

@ObjectType({ description: 'An event of a deployment. The log keeps all events, in order.' })
export class DeploymentEvent {
  @Field(() => ID, { description: 'The id of the deployment.' })
  deploymentId!: string

  @Field(() => Int, { description: 'The sequence number within the deployment: 1, 2, 3 … without gaps.' })
  sequence!: number

  @Field({
    description:
      'The cursor to resume after this event: `deploymentStatus(after: …)`. Opaque; sorts as text.',
  })
  cursor!: string

  @Field(() => DeploymentStepEnum, { description: 'The step reached.' })
  step!: DeploymentStep

  @Field(() => DeploymentStatusEnum, { description: 'The status of the deployment.' })
  status!: DeploymentStatus

  @Field({ description: 'What was happening, as text to display.' })
  text!: string

  @Field(() => Progress, { nullable: true, description: 'The progress of the step, if it takes a while.' })
  progress!: Progress | null

  @Field(() => GraphQLISODateTime, {
    nullable: true,
    description: 'If `WAITING`: when the deployment resumes automatically.',
  })
  waitingUntil!: Date | null

  @Field(() => DeploymentError, { nullable: true, description: 'Why the deployment failed or is waiting.' })
  error!: DeploymentError | null

  @Field(() => GraphQLISODateTime, { description: "When the event happened, by the database's clock." })
  at!: Date

  @Field(() => Deployment, { description: 'The state of the deployment at this event.' })
  deployment!: Deployment
}

export function toDeployment(snapshot: DeploymentSnapshot): Deployment {
  return {
    ...snapshot,
    waitingUntil: toDate(snapshot.waitingUntil),
    createdAt: new Date(snapshot.createdAt),
    updatedAt: new Date(snapshot.updatedAt),
    finishedAt: toDate(snapshot.finishedAt),
    requestedBy: snapshot.requestedBy?.name ?? null,
    requestedByKind: snapshot.requestedBy ? subjectKind(snapshot.requestedBy.id) : null,
    requestedBySubjectId: snapshot.requestedBy?.id ?? null,
    warnings: snapshot.warnings ?? [],
    warningCount: snapshot.warningCount ?? 0,
  }
}

export function toDeploymentEvent(event: LoggedEvent, cursor: string): DeploymentEvent {
  const deployment = toDeployment(event.deployment)
  return {
    deploymentId: event.deploymentId,
    sequence: event.sequence,
    cursor,
    step: deployment.step,
    status: deployment.status,
    text: deployment.text,
    progress: deployment.progress,
    waitingUntil: deployment.waitingUntil,
    error: deployment.error,
    at: event.at,
    deployment,
  }
}

function toDate(time: string | null): Date | null {
  return time === null ? null : new Date(time)
}
