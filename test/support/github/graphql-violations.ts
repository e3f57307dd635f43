import { readFileSync } from 'node:fs'
import { buildSchema, Kind, parse, validate } from 'graphql'
import { getVariableValues } from 'graphql/execution/values.js'

const schema = buildSchema(readFileSync(new URL('./github-subset.graphql', import.meta.url), 'utf8'))

/** Validates a document and its variables against GitHub's own schema; see scripts/github-graphql.mjs. */
export function graphqlViolations(query: string, variables: Record<string, unknown>): string[] {
  const document = parse(query)
  const errors = validate(schema, document)
  if (errors.length > 0) return errors.map(({ message }) => message)
  return document.definitions.flatMap((definition) => {
    if (definition.kind !== Kind.OPERATION_DEFINITION) return []
    const result = getVariableValues(schema, definition.variableDefinitions ?? [], variables)
    return (result.errors ?? []).map(({ message }) => message)
  })
}
