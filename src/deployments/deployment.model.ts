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

export const DeploymentStepEnum = {
  DEPLOY: 'DEPLOY',
  CREATE_ORG: 'CREATE_ORG',
  CREATE_REPO: 'CREATE_REPO',
  PUSH_CONTENTS: 'PUSH_CONTENTS',
  DONE: 'DONE',
} as const satisfies { [Step in DeploymentStep]: Step }

registerEnumType(DeploymentStepEnum, {
  name: 'DeploymentStep',
  description: 'What a deployment has reached.',
  valuesMap: {
    DEPLOY: { description: 'It has been accepted.' },
    CREATE_ORG: { description: 'The organization is there.' },
    CREATE_REPO: { description: 'The repository is there, still empty.' },
    PUSH_CONTENTS: { description: 'The contents are on the branch.' },
    DONE: { description: 'All of it was looked at once more, and is there.' },
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
  description: 'How a deployment is doing.',
  valuesMap: {
    QUEUED: {
      description:
        'All runners are busy; it starts as soon as one is free. Organizations take turns; within one it is first come, first served.',
    },
    RUNNING: { description: 'A runner works on it.' },
    WAITING: { description: 'For the forge, until `waitingUntil`; it goes on by itself.' },
    SUCCEEDED: { description: 'The repository is there with its contents.' },
    FAILED: { description: '`error` says why, and whether `retryDeployment` can help.' },
    CANCELLED: { description: 'Somebody stopped it; `retryDeployment` goes on.' },
  },
})

export const VisibilityEnum = { PUBLIC: 'PUBLIC', PRIVATE: 'PRIVATE' } as const satisfies {
  [V in Visibility]: V
}

registerEnumType(VisibilityEnum, {
  name: 'Visibility',
  description: 'Who may see the repository.',
  valuesMap: {
    PUBLIC: { description: 'Everybody.' },
    PRIVATE: { description: 'Those who are given access.' },
  },
})

@ObjectType({ description: 'How far the present step is.' })
export class Progress {
  @Field(() => Int, { description: 'How much is done, in `unit`s.' })
  done!: number

  @Field(() => Int, { description: 'How much there is to do, in `unit`s.' })
  total!: number

  @Field({ description: 'What is counted, for people: "bytes".' })
  unit!: string
}

@ObjectType({ description: 'Why a deployment failed, or has to try again.' })
export class DeploymentError implements DeploymentProblem {
  @Field({ description: 'What went wrong, in capitals; stays the same between versions.' })
  code!: string

  @Field({ description: 'What went wrong and what to do about it, in a sentence or two.' })
  message!: string

  @Field({
    description: 'Whether `retryDeployment` can help, perhaps after somebody did what `message` says.',
  })
  retryable!: boolean

  @Field(() => DeploymentStepEnum, { description: 'The step that was being taken.' })
  step!: DeploymentStep
}

@ObjectType({ description: 'One repository on its way to the forge.' })
export class Deployment {
  @Field(() => ID, { description: 'A UUID; later deployments have greater ids.' })
  id!: string

  @Field({ description: 'The organization, as it was asked for.' })
  org!: string

  @Field({ description: 'The repository, as it was asked for.' })
  repo!: string

  @Field(() => VisibilityEnum, { description: 'Who may see the repository.' })
  visibility!: Visibility

  @Field(() => String, { nullable: true, description: "The repository's description." })
  description!: string | null

  @Field({ description: 'The branch that the contents are put on.' })
  branch!: string

  @Field(() => DeploymentStepEnum, { description: 'What has been reached.' })
  step!: DeploymentStep

  @Field(() => DeploymentStatusEnum, { description: 'How it is doing.' })
  status!: DeploymentStatus

  @Field({ description: 'What is happening now, for people.' })
  text!: string

  @Field(() => Int, { description: 'Number of its newest event; from 1, without gaps.' })
  sequence!: number

  @Field(() => Int, { description: '1, and one more for each `retryDeployment`.' })
  attempt!: number

  @Field(() => Progress, {
    nullable: true,
    description: 'How far the present step is, where that takes a while.',
  })
  progress!: Progress | null

  @Field(() => GraphQLISODateTime, {
    nullable: true,
    description: 'When it goes on by itself, while it is `WAITING`.',
  })
  waitingUntil!: Date | null

  @Field(() => DeploymentError, { nullable: true, description: 'Why it failed, or has to try again.' })
  error!: DeploymentError | null

  @Field(() => String, { nullable: true, description: 'Where to look at the repository, once it is there.' })
  repositoryUrl!: string | null

  @Field(() => String, { nullable: true, description: 'What to `git clone`, once the repository is there.' })
  cloneUrl!: string | null

  @Field(() => String, {
    nullable: true,
    description: 'The commit with the contents, once they are there: 40 hex digits.',
  })
  commitSha!: string | null

  @Field(() => Int, { description: 'How many files it puts there.' })
  fileCount!: number

  @Field(() => Int, { description: 'Length of all its files together, in bytes.' })
  sizeBytes!: number

  @Field(() => String, {
    nullable: true,
    description: 'Who asked for it: the name of a person or a service; `local` where there are no accounts.',
  })
  requestedBy!: string | null

  @Field(() => SubjectKindEnum, {
    nullable: true,
    description: 'The kind of subject. A person and a service may have the same name.',
  })
  requestedByKind!: SubjectKind | null

  @Field(() => [String], {
    description:
      'Problems with the contents that did not stop the deployment: names that Windows or macOS cannot check out. At most 20, a sentence each.',
  })
  warnings!: string[]

  @Field(() => Int, {
    description: 'How many warnings there are, including those that `warnings` leaves out.',
  })
  warningCount!: number

  @Field(() => GraphQLISODateTime, { description: 'When it was accepted.' })
  createdAt!: Date

  @Field(() => GraphQLISODateTime, { description: 'When its newest event happened.' })
  updatedAt!: Date

  @Field(() => GraphQLISODateTime, {
    nullable: true,
    description: 'When it succeeded, failed or was cancelled.',
  })
  finishedAt!: Date | null
}

/** As GraphQL tells it. */
export function toDeployment(snapshot: DeploymentSnapshot): Deployment {
  return {
    ...snapshot,
    waitingUntil: toDate(snapshot.waitingUntil),
    createdAt: new Date(snapshot.createdAt),
    updatedAt: new Date(snapshot.updatedAt),
    finishedAt: toDate(snapshot.finishedAt),
    requestedBy: snapshot.requestedBy?.name ?? null,
    requestedByKind: snapshot.requestedBy ? subjectKind(snapshot.requestedBy.id) : null,
    warnings: snapshot.warnings ?? [],
    warningCount: snapshot.warningCount ?? 0,
  }
}

/** As GraphQL tells it: most of an event is the deployment as it was then. */
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

@ObjectType({ description: 'One deployment of a page.' })
export class DeploymentEdge {
  @Field({ description: 'Where the next page begins: `deployments(after: …)`.' })
  cursor!: string

  @Field(() => Deployment, { description: 'The deployment.' })
  node!: Deployment
}

@ObjectType({ description: 'One page of deployments, newest first (a Relay connection).' })
export class DeploymentConnection {
  @Field(() => [DeploymentEdge], { description: 'The page.' })
  edges!: DeploymentEdge[]

  @Field(() => PageInfo, { description: 'Where the page stands.' })
  pageInfo!: PageInfo
}

@ObjectType({ description: 'One thing that happened to a deployment. The log keeps all of them, in order.' })
export class DeploymentEvent {
  @Field(() => ID, { description: 'The deployment that it happened to.' })
  deploymentId!: string

  @Field(() => Int, { description: 'Number of the event within its deployment: 1, 2, 3 … without gaps.' })
  sequence!: number

  @Field({
    description: 'Where to go on after this event: `deploymentStatus(after: …)`. Opaque; sorts as text.',
  })
  cursor!: string

  @Field(() => DeploymentStepEnum, { description: 'What had been reached.' })
  step!: DeploymentStep

  @Field(() => DeploymentStatusEnum, { description: 'How the deployment was doing.' })
  status!: DeploymentStatus

  @Field({ description: 'What was happening, for people.' })
  text!: string

  @Field(() => Progress, { nullable: true, description: 'How far the step was, where that takes a while.' })
  progress!: Progress | null

  @Field(() => GraphQLISODateTime, {
    nullable: true,
    description: 'When it goes on by itself, if it is `WAITING`.',
  })
  waitingUntil!: Date | null

  @Field(() => DeploymentError, { nullable: true, description: 'Why it failed, or has to try again.' })
  error!: DeploymentError | null

  @Field(() => GraphQLISODateTime, { description: 'When it happened, by the clock of the database.' })
  at!: Date

  @Field(() => Deployment, { description: 'The deployment as it was at this event.' })
  deployment!: Deployment
}
