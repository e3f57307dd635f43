import { Field, ObjectType } from '@nestjs/graphql'
import { PageInfo } from '../graphql/page-info.model.ts'
import { Deployment } from './deployment.model.ts'

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
