import { describe, expect, test } from '@jest/globals'
import fc from 'fast-check'
import {
  buildSchema,
  type ExecutionResult,
  execute,
  type GraphQLFieldResolver,
  parse,
  validate,
} from 'graphql'
import { BadUserInputError } from '../errors.ts'
import { findOperation, prepareOperation } from './prepare-operation.ts'

const schema = buildSchema(`
  type Query {
    find(id: ID, ids: [[ID!]!], state: State = OPEN, states: [State!], at: Int! = 3, is: Boolean, filter: Filter): String
    other: Query
  }
  enum State { OPEN CLOSED }
  input Filter { name: String!, state: State = OPEN, limit: Int! = 10, size: Float, tags: [String], inner: Filter }
`)

/** Returns its arguments, as a resolver receives them. */
const rootValue = { find: (args: object) => JSON.stringify(args), other: () => rootValue }
const fieldResolver: GraphQLFieldResolver<unknown, unknown> = (source, args, _context, { fieldName }) => {
  const value = (source as Record<string, unknown>)[fieldName]
  return typeof value === 'function' ? value(args) : value
}

const id = fc.oneof(fc.string(), fc.integer())
const ids = fc.oneof(id, fc.array(id, { maxLength: 2 }))
const text = fc.string()
const texts = fc.oneof(text, fc.array(fc.option(text)))
const state = fc.constantFrom('OPEN', 'CLOSED')
const states = fc.oneof(state, fc.array(state, { maxLength: 2 }))
const int = fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 })
const boolean = fc.boolean()
const filter = fc.letrec((tie) => ({
  filter: fc.record(
    { name: text, state: fc.option(state), limit: int, size: fc.float(), tags: texts, inner: tie('filter') },
    { requiredKeys: ['name'] },
  ),
})).filter
const invalid = fc.oneof(id, ids, fc.array(ids), states, int, fc.double(), boolean, filter, fc.object())

/** Operations, with generators of their variables. */
const operations: [string, fc.Arbitrary<unknown>, fc.Arbitrary<unknown>][] = [
  ['query ($a: ID, $b: [[ID!]!]) { find(id: $a, ids: $b) }', id, fc.array(ids)],
  ['query ($a: ID!, $b: ID = "x") { find(id: $a, ids: [[$a], [$b]]) }', id, id],
  ['query ($a: [ID!]!, $b: ID!) { find(ids: [$a, [$b, "y"]]) }', ids, id],
  ['query ($a: State, $b: [State!]) { find(state: $a, states: $b) }', state, states],
  ['query ($a: State! = CLOSED, $b: Int!) { find(states: [$a]) other { find(at: $b) } }', state, int],
  ['query ($a: Int = 5, $b: Int!) { find(at: $a) two: find(at: $b) }', int, int],
  ['query ($a: Filter, $b: ID) { find(filter: $a) two: find(id: $b) }', filter, id],
  ['query ($a: Filter! = { name: "z", tags: "t" }) { find(filter: { name: "x", inner: $a }) }', filter, id],
  ['query ($a: String!, $b: State) { find(filter: { name: $a, state: $b, tags: [$a, null] }) }', text, state],
  ['query ($a: [String], $b: Int = 4) { find(filter: { name: "x", tags: $a, limit: $b }) }', texts, int],
  [
    'query ($a: Boolean!, $b: Boolean = true) { find @include(if: $a) two: find @skip(if: $b) }',
    boolean,
    boolean,
  ],
  ['query ($a: Boolean = null) { ... on Query @skip(if: false) { find(is: $a) } }', boolean, boolean],
  ['query ($a: Boolean! = false) { ...F } fragment F on Query { find @include(if: $a) }', boolean, boolean],
]

const requests = fc.oneof(
  ...operations.map(([query, a, b]) => {
    const mostly = (valid: fc.Arbitrary<unknown>) =>
      fc.oneof({ weight: 8, arbitrary: valid }, fc.constant(null), invalid)
    const variables = fc.record({ a: mostly(a), b: mostly(b), unused: invalid }, { requiredKeys: [] })
    return fc.tuple(fc.constant(query), variables)
  }),
)

type Variables = Record<string, unknown>

/** Undefined: the variables were refused. */
function executePrepared(query: string, variables: Variables): ExecutionResult | undefined {
  const document = parse(query)
  const operation = findOperation(document, undefined)
  if (!operation) throw new Error('The document has no operation.')
  try {
    const args = prepareOperation(schema, document, operation, variables)
    return execute({ ...args, rootValue, fieldResolver }) as ExecutionResult
  } catch (error) {
    if (error instanceof BadUserInputError) return undefined
    throw error
  }
}

/** The same with graphql-js alone: if it refuses the variables, the result has no `data`. */
function executeByGraphql(query: string, variables: Variables): ExecutionResult | undefined {
  const args = { schema, document: parse(query), variableValues: variables, rootValue, fieldResolver }
  const result = execute(args) as ExecutionResult
  return 'data' in result ? result : undefined
}

test('executing a prepared operation gives the same result as graphql-js', () => {
  for (const [query] of operations) expect(validate(schema, parse(query))).toEqual([])
  let succeeded = 0
  fc.assert(
    fc.property(requests, ([query, variables]) => {
      const prepared = executePrepared(query, variables)
      if (prepared && !prepared.errors) succeeded++
      return JSON.stringify(prepared) === JSON.stringify(executeByGraphql(query, variables))
    }),
    { numRuns: 1_000 },
  )
  expect(succeeded).toBeGreaterThan(250)
})

describe('__type finds the types of the schema, but not the type of coerced variables:', () => {
  test.each(['CoercedVariable', 'State', 'Nope'])('%s', (name) => {
    const query = 'query ($name: String!) { __type(name: $name) { name kind } }'
    expect(executePrepared(query, { name })).toEqual(executeByGraphql(query, { name }))
  })
})
