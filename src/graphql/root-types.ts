import type { GraphQLSchema } from 'graphql'

/** Nest has no place for the descriptions of these three types. */
export function describeRootTypes(schema: GraphQLSchema): GraphQLSchema {
  const descriptions = [
    [schema.getQueryType(), 'What there is now. Over HTTP or over the socket.'],
    [schema.getMutationType(), 'What changes deployments. Over HTTP or over the socket.'],
    [schema.getSubscriptionType(), 'What happens, as it happens. Over the socket only.'],
  ] as const
  for (const [type, description] of descriptions) if (type) type.description = description
  return schema
}
