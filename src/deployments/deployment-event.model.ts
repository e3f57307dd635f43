import { Field, GraphQLISODateTime, ID, Int, ObjectType } from '@nestjs/graphql'
import type { DeploymentStatus, DeploymentStep } from '../events/logged-event.ts'
import {
  Deployment,
  DeploymentError,
  DeploymentStatusEnum,
  DeploymentStepEnum,
  Progress,
} from './deployment.model.ts'

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
