import { readFileSync } from 'node:fs'
import { buildSchema, Kind, parse, validate } from 'graphql'
import { getVariableValues } from 'graphql/execution/values.js'

const schema = buildSchema(readFileSync(new URL('./github-subset.graphql', import.meta.url), 'utf8'))

/** What GitHub's own schema has against a document and its variables; see scripts/github-graphql.mjs. */
export function graphqlViolations(query: string, variables: Record<string, unknown>): string[] {
  const document = parse(query)
  const faults = validate(schema, document)
  if (faults.length > 0) return faults.map(({ message }) => message)
  return document.definitions.flatMap((definition) => {
    if (definition.kind !== Kind.OPERATION_DEFINITION) return []
    const { errors = [] } = getVariableValues(schema, definition.variableDefinitions ?? [], variables)
    return errors.map(({ message }) => message)
  })
}
