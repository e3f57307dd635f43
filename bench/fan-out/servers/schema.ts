import { readFileSync } from 'node:fs'
import { GraphQLISODateTime } from '@nestjs/graphql'

/** Shipcast's own schema, for the other servers. */
export const TYPE_DEFINITIONS = readFileSync(new URL('../../../schema.gql', import.meta.url), 'utf8')

export const TOPIC = 'deploymentStatus'

/** All servers serialize dates in the same way. */
export const DateTime = GraphQLISODateTime
