import 'reflect-metadata'
import type { AddressInfo } from 'node:net'
import { ApolloDriver, type ApolloDriverConfig } from '@nestjs/apollo'
import { Module } from '@nestjs/common'
import { NestFactory } from '@nestjs/core'
import { GraphQLModule, Resolver, Subscription } from '@nestjs/graphql'
import { PubSub } from 'graphql-subscriptions'
import { DateTime, TOPIC, TYPE_DEFINITIONS } from './schema.ts'
import { publisher, serve } from './serve.ts'

/*
 * NestJS, schema first, as https://docs.nestjs.com/graphql/subscriptions shows: Apollo's driver, graphql-ws switched on,
 * and a PubSub of graphql-subscriptions. Decorators are called by hand, because Node runs this file as it is.
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
  ...publisher((event) => void pubSub.publish(TOPIC, { deploymentStatus: event })),
  close: () => app.close(),
})
