import { Field, ObjectType } from '@nestjs/graphql'
import { Deployment } from './deployment.model.ts'

@ObjectType({ description: 'One deployment of a page.' })
export class DeploymentEdge {
  @Field({ description: 'Where the next page begins: `deployments(after: …)`.' })
  cursor!: string

  @Field(() => Deployment, { description: 'The deployment.' })
  node!: Deployment
}

@ObjectType({ description: 'Where a page stands among the others.' })
export class PageInfo {
  @Field({ description: 'Whether there are older ones.' })
  hasNextPage!: boolean

  @Field({ description: 'Whether the page began after a cursor.' })
  hasPreviousPage!: boolean

  @Field(() => String, { nullable: true, description: 'Cursor of the first one.' })
  startCursor!: string | null

  @Field(() => String, { nullable: true, description: 'Cursor of the last one.' })
  endCursor!: string | null
}

@ObjectType({ description: 'One page of deployments, newest first (a Relay connection).' })
export class DeploymentConnection {
  @Field(() => [DeploymentEdge], { description: 'The page.' })
  edges!: DeploymentEdge[]

  @Field(() => PageInfo, { description: 'Where the page stands.' })
  pageInfo!: PageInfo
}
