import { Module } from '@nestjs/common'
import { GraphQLHttpModule } from '../graphql/graphql.module.ts'
import { SubscriptionSocket } from './subscription-socket.ts'

@Module({ imports: [GraphQLHttpModule], providers: [SubscriptionSocket] })
export class LiveModule {}
