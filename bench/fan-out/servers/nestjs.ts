import 'reflect-metadata'
import type { AddressInfo } from 'node:net'
import { ApolloDriver, type ApolloDriverConfig } from '@nestjs/apollo'
import { Module } from '@nestjs/common'
import { NestFactory } from '@nestjs/core'
import { GraphQLModule, Resolver, Subscription } from '@nestjs/graphql'
import { PubSub } from 'graphql-subscriptions'
import { DateTime, TOPIC, TYPE_DEFINITIONS } from './schema.ts'
import { createPublisher, serve } from './serve.ts'

/*
 * NestJS, schema first, following https://docs.nestjs.com/graphql/subscriptions: Apollo's driver with
 * graphql-ws, and PubSub of graphql-subscriptions. Decorators are called as functions, because Node only
 * strips the types of this file.
 */

const pubSub = new PubSub()

class DeploymentsResolver {
  deploymentStatus() {
    return pubSub.asyncIterableIterator(TOPIC)
  }
}
Subscription('deploymentStatus')(
  DeploymentsResolver.prototype,
  'deploymentStatus',
  Object.getOwnPropertyDescriptor(DeploymentsResolver.prototype, 'deploymentStatus')!,
)
Resolver('DeploymentEvent')(DeploymentsResolver)

class AppModule {}
Module({
  imports: [
    GraphQLModule.forRoot<ApolloDriverConfig>({
      driver: ApolloDriver,
      typeDefs: TYPE_DEFINITIONS,
      resolvers: { DateTime },
      subscriptions: { 'graphql-ws': true },
    }),
  ],
  providers: [DeploymentsResolver],
})(AppModule)

const app = await NestFactory.create(AppModule, { logger: ['error', 'warn'] })
await app.listen(0, '127.0.0.1')
const { port } = app.getHttpServer().address() as AddressInfo
serve({
  url: `ws://127.0.0.1:${port}/graphql`,
  ...createPublisher((event) => void pubSub.publish(TOPIC, { deploymentStatus: event })),
  close: () => app.close(),
})
