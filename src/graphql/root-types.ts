import type { GraphQLSchema } from 'graphql'

/** Nest has no option for the descriptions of the root types. */
export function describeRootTypes(schema: GraphQLSchema): GraphQLSchema {
  const descriptions = [
    [schema.getQueryType(), 'Reads the current state. Over HTTP or the socket.'],
    [schema.getMutationType(), 'Creates and changes deployments. Over HTTP or the socket.'],
    [schema.getSubscriptionType(), 'Sends events as they happen. Over the socket only.'],
  ] as const
  for (const [type, description] of descriptions) if (type) type.description = description
  return schema
}
