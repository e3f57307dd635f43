import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { ExecutionArgs } from 'graphql'
import { useServer } from 'graphql-ws/use/ws'
import { createPubSub, createSchema, createYoga } from 'graphql-yoga'
import { WebSocketServer } from 'ws'
import type { DeploymentEventValue } from '../events.ts'
import { DateTime, TOPIC, TYPE_DEFINITIONS } from './schema.ts'
import { createPublisher, serve } from './serve.ts'

/* GraphQL Yoga with graphql-ws, following https://the-guild.dev/graphql/yoga-server/docs/features/subscriptions. */

const pubSub = createPubSub<{ [TOPIC]: [event: DeploymentEventValue] }>()

const yoga = createYoga({
  schema: createSchema({
    typeDefs: TYPE_DEFINITIONS,
    resolvers: {
      DateTime,
      Subscription: {
        deploymentStatus: {
          subscribe: () => pubSub.subscribe(TOPIC),
          resolve: (event: DeploymentEventValue) => event,
        },
      },
    },
  }),
  graphiql: { subscriptionsProtocol: 'WS' },
})
const httpServer = createServer(yoga)
const sockets = new WebSocketServer({ server: httpServer, path: yoga.graphqlEndpoint })

type Enveloped = ExecutionArgs & {
  rootValue: Pick<ReturnType<typeof yoga.getEnveloped>, 'execute' | 'subscribe'>
}

useServer(
  {
    execute: (args) => (args as Enveloped).rootValue.execute(args),
    subscribe: (args) => (args as Enveloped).rootValue.subscribe(args),
    onSubscribe: async (ctx, _id, params) => {
      const { schema, execute, subscribe, contextFactory, parse, validate } = yoga.getEnveloped({
        ...ctx,
        req: ctx.extra.request,
        socket: ctx.extra.socket,
        params,
      })
      const args = {
        schema,
        operationName: params.operationName,
        document: parse(params.query),
        variableValues: params.variables,
        contextValue: await contextFactory(),
        rootValue: { execute, subscribe },
      }
      const errors = validate(args.schema, args.document)
      if (errors.length) return errors
      return args
    },
  },
  sockets,
)

httpServer.listen(0, '127.0.0.1')
await once(httpServer, 'listening')
serve({
  url: `ws://127.0.0.1:${(httpServer.address() as AddressInfo).port}${yoga.graphqlEndpoint}`,
  ...createPublisher((event) => pubSub.publish(TOPIC, event)),
  async close() {
    for (const socket of sockets.clients) socket.terminate()
    httpServer.close()
  },
})
