import type { AddressInfo } from 'node:net'
import Fastify from 'fastify'
import mercurius from 'mercurius'
import { DateTime, TOPIC, TYPE_DEFINITIONS } from './schema.ts'
import { createPublisher, serve } from './serve.ts'

/* Mercurius with its subscriptions and its own emitter, following https://mercurius.dev/#/docs/subscriptions. */

const app = Fastify()
app.register(mercurius, {
  schema: TYPE_DEFINITIONS,
  resolvers: {
    DateTime,
    Subscription: {
      deploymentStatus: {
        subscribe: async (_root, _args, { pubsub }) => await pubsub.subscribe(TOPIC),
      },
    },
  },
  subscription: true,
})
await app.listen({ port: 0, host: '127.0.0.1' })
const { port } = app.server.address() as AddressInfo
serve({
  url: `ws://127.0.0.1:${port}/graphql`,
  ...createPublisher((event) =>
    app.graphql.pubsub.publish({ topic: TOPIC, payload: { deploymentStatus: event } }),
  ),
  close: () => app.close(),
})
