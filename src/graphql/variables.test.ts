import { describe, expect, test } from '@jest/globals'
import { buildSchema, getVariableValues, Kind, type OperationDefinitionNode, parse } from 'graphql'
import { BadUserInputError } from '../errors.ts'
import { coerceVariables } from './variables.ts'

const schema = buildSchema(`
  type Query { find(query: Find, ids: [[ID!]!], states: [State!], at: Int): String }
  enum State { OPEN CLOSED }
  input Find @oneOf { name: String, all: [Filter!] }
  input Filter { name: String!, state: State = OPEN, limit: Int! = 10, inner: Filter }
`)
const findType = schema.getType('Find') as unknown as { getFields(): { all: { extensions: object } } }
findType.getFields().all.extensions = { maxItems: 20_000 }

function operation(definitions: string): OperationDefinitionNode {
  const [first] = parse(`query (${definitions}) { __typename }`).definitions
  if (first?.kind !== Kind.OPERATION_DEFINITION) throw new Error('The document has no operation.')
  return first
}

function fieldErrorOf(
  definitions: string,
  variables: Record<string, unknown>,
): { path: string; reason: string } {
  try {
    coerceVariables(schema, operation(definitions), variables)
  } catch (error) {
    if (error instanceof BadUserInputError) {
      const fields = error.extensions.fields as { path: string; reason: string }[]
      expect(fields).toHaveLength(1)
      expect(error.message.length).toBeLessThan(1_000)
      return fields[0] as { path: string; reason: string }
    }
    throw error
  }
  throw new Error('The variables were accepted.')
}

test.each<[string, Record<string, unknown>]>([
  ['$a: Int', {}],
  ['$a: Int = 3', {}],
  ['$a: Int = 3', { a: null }],
  ['$a: [Int]', { a: 3 }],
  ['$a: [[ID!]!]', { a: [['x', 3], 'y'] }],
  ['$a: [State!] = [OPEN]', { a: 'CLOSED', unused: 1 }],
  ['$a: Find', { a: { name: 'x' } }],
  ['$a: Find!', { a: { all: { name: 'x' } } }],
  [
    '$a: Find!',
    {
      a: {
        all: [
          { name: 'x', inner: { name: 'y', limit: 1 } },
          { name: '', state: null },
        ],
      },
    },
  ],
  ['$a: Filter', { a: { name: '__proto__', inner: null } }],
])('coerces %s and %j like graphql-js', (definitions, variables) => {
  const node = operation(definitions)
  const { coerced } = getVariableValues(schema, node.variableDefinitions ?? [], variables)
  expect(coerced).toBeDefined()
  expect(coerceVariables(schema, node, variables)).toEqual(coerced)
})

describe('stops at the first error, and reports its path:', () => {
  const all = (filter: unknown) => ({ a: { all: [{ name: 'x' }, filter] } })
  const nested = JSON.parse(`${'{"name":"x","inner":'.repeat(60)}null${'}'.repeat(60)}`)

  test.each<[string, string, Record<string, unknown>, string, RegExp]>([
    ['a missing variable', '$a: Int!', {}, 'a', /is required/],
    ['null', '$a: Int!', { a: null }, 'a', /must not be null/],
    ['a missing field', '$a: Find', all({}), 'a.all[1].name', /is required/],
    ['null in a field', '$a: Find', all({ name: null }), 'a.all[1].name', /must not be null/],
    ['a list for a string', '$a: Find', all({ name: [] }), 'a.all[1].name', /is a list/],
    ['an object for a string', '$a: Find', { a: { name: {} } }, 'a.name', /is an object/],
    ['a string for an object', '$a: Find', { a: 'x' }, 'a', /must be an object/],
    ['a list for an object', '$a: Filter', { a: [] }, 'a', /must be an object/],
    ['an unknown field', '$a: Find', all({ name: 'x', nope: 1 }), 'a.all[1].nope', /not a field of Filter/],
    [
      'an inherited name',
      '$a: Filter',
      { a: JSON.parse('{"name":"x","__proto__":1}') },
      'a.__proto__',
      /not a/,
    ],
    ['no field of a oneOf object', '$a: Find', { a: {} }, 'a', /exactly one of "name" and "all"/],
    ['both fields of a oneOf object', '$a: Find', { a: { name: 'x', all: [] } }, 'a', /exactly one/],
    ['null in a oneOf object', '$a: Find', { a: { name: null } }, 'a', /exactly one/],
    ['an unknown enum value', '$a: [State!]', { a: ['OPEN', 'OPENED'] }, 'a[1]', /"OPENED" does not exist/],
    ['a fraction', '$a: Int', { a: 1.5 }, 'a', /non-integer/],
    ['too deep', '$a: Filter', { a: nested }, `a${'.inner'.repeat(30)}`, /nested too deeply/],
  ])('%s', (_, definitions, variables, path, reason) => {
    expect(fieldErrorOf(definitions, variables)).toEqual({ path, reason: expect.stringMatching(reason) })
  })
})

// Each of these took graphql-js seconds, gigabytes, or a response of megabytes.
describe('takes no longer for more of the same:', () => {
  const many = Array.from({ length: 300_000 }, (_, index) => index)
  const object = Object.fromEntries(many.map((index) => [`k${index}`, 1]))

  test.each<[string, string, Record<string, unknown>, string, RegExp]>([
    ['invalid values', '$a: [State!]', { a: many.map(() => 'X') }, 'a', /at most 2 items, but has 300000/],
    ['valid values', '$a: [State!]', { a: many.map(() => 'OPEN') }, 'a', /at most 2 items/],
    ['invalid items', '$a: [ID!]', { a: many.map(() => ({})) }, 'a', /at most 1000 items/],
    [
      'items of a field with its own limit',
      '$a: Find',
      { a: { all: many.map(() => ({ name: 'x' })) } },
      'a.all',
      /20000/,
    ],
    ['unknown fields', '$a: Filter', { a: { name: 'x', ...object } }, 'a.k0', /not a field/],
    ['fields of a string', '$a: ID', { a: object }, 'a', /is an object/],
    ['a long value', '$a: State', { a: 'X'.repeat(5_000_000) }, 'a', /^is not valid: .{1,210}$/],
    [
      'a long name',
      '$a: Filter',
      { a: { name: 'x', ['n'.repeat(1_000_000)]: 1 } },
      `a.${'n'.repeat(49)}…`,
      /not a/,
    ],
    [
      'an error beside a long string',
      '$a: [Filter!]',
      { a: [{ name: 'x'.repeat(5_000_000), limit: 'y' }] },
      'a[0].limit',
      /Int/,
    ],
  ])('%s', (_, definitions, variables, path, reason) => {
    expect(fieldErrorOf(definitions, variables)).toEqual({ path, reason: expect.stringMatching(reason) })
  })
})
