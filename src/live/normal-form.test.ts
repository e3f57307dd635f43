import { readFileSync } from 'node:fs'
import { describe, expect, test } from '@jest/globals'
import { buildSchema, execute, getOperationAST, parse, validate } from 'graphql'
import { checkEventLimits, normalForm, normalValues } from './normal-form.ts'

const schema = buildSchema(readFileSync('schema.gql', 'utf8'))

function normalize(text: string, operationName?: string) {
  const document = parse(text)
  expect(validate(schema, document)).toEqual([])
  const operation = getOperationAST(document, operationName)
  if (!operation) throw new Error('The document has no such operation.')
  return { document, operation, normal: normalForm(document, operation) }
}

const keyOf = (text: string, operationName?: string) => normalize(text, operationName).normal.key

describe('two subscriptions share a key', () => {
  const PLAIN = 'subscription { deploymentStatus { cursor deployment { id org } } }'

  test.each([
    ['a name', 'subscription Any { deploymentStatus { cursor deployment { id org } } }'],
    ['white space and comments', '#x\nsubscription{deploymentStatus{cursor,deployment{id\n#y\norg}}}'],
    [
      'a cursor and an id, as variables',
      'subscription ($a: String, $b: ID) { deploymentStatus(after: $a, deploymentId: $b) { cursor deployment { id org } } }',
    ],
    [
      'a cursor and an id, as literals',
      'subscription { deploymentStatus(deploymentId: "x", after: "1") { cursor deployment { id org } } }',
    ],
  ])('if they differ only in %s', (_, text) => {
    expect(keyOf(text)).toBe(keyOf(PLAIN))
  })

  test('if they differ only in names and order of fragments, and in unused definitions', () => {
    const one = `subscription { deploymentStatus { ...A deployment { ...B } } }
      fragment A on DeploymentEvent { cursor } fragment B on Deployment { id ...C } fragment C on Deployment { org }`
    const other = `query Other { me { name } } fragment Y on Deployment { org } fragment Z on Deployment { repo }
      fragment X on Deployment { id ...Y } fragment A on DeploymentEvent { cursor }
      subscription S { deploymentStatus { ...A deployment { ...X } } } query Q { deployments { edges { node { ...Z } } } }`
    expect(keyOf(other, 'S')).toBe(keyOf(one))
  })

  test('if they differ only in names and order of variables, and the values are equal', () => {
    const one = normalize(`subscription ($a: Boolean!, $b: Boolean! = true, $c: String) {
      deploymentStatus(after: $c) { cursor text @include(if: $a) at @skip(if: $b) } }`)
    const other = normalize(`subscription ($after: String, $at: Boolean!, $text: Boolean!) {
      deploymentStatus(after: $after) { cursor text @include(if: $text) at @skip(if: $at) } }`)
    expect(other.normal.key).toBe(one.normal.key)
    expect(normalValues(one.normal, { c: '1', a: false, b: true })).toEqual({ v0: false, v1: true })
    expect(normalValues(other.normal, { at: true, text: false, after: '2' })).toEqual({ v0: false, v1: true })
  })

  test('if a variable is named like an inherited property, which is not taken for its value', () => {
    const { normal } = normalize(
      'subscription ($toString: Boolean! = true) { deploymentStatus { at @skip(if: $toString) } }',
    )
    expect(normalValues(normal, {})).toEqual({ v0: undefined })
  })
})

describe('two subscriptions have distinct keys', () => {
  test.each([
    ['an alias', '{ deploymentStatus { a: cursor } }', '{ deploymentStatus { b: cursor } }'],
    ['an alias of the root', '{ a: deploymentStatus { cursor } }', '{ b: deploymentStatus { cursor } }'],
    ['the order of fields', '{ deploymentStatus { at cursor } }', '{ deploymentStatus { cursor at } }'],
    [
      'a condition',
      '{ deploymentStatus { at cursor @skip(if: true) } }',
      '{ deploymentStatus { at cursor } }',
    ],
    [
      'where two variables are used',
      '($a: Boolean!, $b: Boolean!) { deploymentStatus { at @skip(if: $a) cursor @skip(if: $b) } }',
      '($a: Boolean!, $b: Boolean!) { deploymentStatus { at @skip(if: $a) cursor @skip(if: $a) text @skip(if: $b) } }',
    ],
    [
      'the condition of a fragment',
      '{ deploymentStatus { at ...F @skip(if: true) } } fragment F on DeploymentEvent { cursor }',
      '{ deploymentStatus { at ...F } } fragment F on DeploymentEvent { cursor }',
    ],
  ])('if they differ in %s', (_, one, other) => {
    expect(keyOf(`subscription ${one}`)).not.toBe(keyOf(`subscription ${other}`))
  })
})

test('the normal form has the same result as the original', () => {
  const { document, normal } = normalize(`subscription S($no: Boolean!, $id: ID) {
    s: deploymentStatus(deploymentId: $id) { ...E deployment { name: repo org @skip(if: $no) ...D @include(if: $no) } } }
    fragment E on DeploymentEvent { sequence text @include(if: $no) }
    fragment D on Deployment { id ... on Deployment { branch @skip(if: $no) } }`)
  const event = { sequence: 4, text: 'x', deployment: { id: '1', repo: 'web', org: 'acme', branch: 'main' } }
  const rootValue = { deploymentStatus: event }
  for (const no of [true, false]) {
    const original = execute({ schema, document, rootValue, variableValues: { no } })
    const variableValues = normalValues(normal, { no })
    const normalized = execute({ schema, document: normal.document, rootValue, variableValues })
    expect(JSON.stringify(normalized)).toBe(JSON.stringify(original))
    expect(original).not.toHaveProperty('errors')
  }
})

describe('a subscription is refused', () => {
  test.each([
    'subscription { deploymentStatus { deployment { events { text } } } }',
    'subscription { deploymentStatus { ...F } } fragment F on DeploymentEvent { deployment { all: events(first: 1) { at } } }',
  ])('if it selects a field that is read from the database: %s', (text) => {
    const refusal = checkEventLimits(schema, normalize(text).normal)
    expect(refusal?.code).toBe('BAD_USER_INPUT')
    expect(refusal?.extensions.fields).toMatchObject([{ path: 'Deployment.events' }])
  })

  test('if it selects too many fields, by aliases or fragments, not counting other operations', () => {
    const aliases = Array.from({ length: 201 }, (_, i) => `a${i}: text`).join(' ')
    const flood = `query Q { deployments { edges { node { ${aliases} } } } }`
    for (const text of [
      `subscription { deploymentStatus { ${aliases} } }`,
      `subscription { deploymentStatus { ${'...A '.repeat(20)} } } fragment A on DeploymentEvent { ${'...B '.repeat(20)} }
       fragment B on DeploymentEvent { ${'...C '.repeat(20)} } fragment C on DeploymentEvent { text }`,
    ]) {
      expect(checkEventLimits(schema, normalize(text).normal)?.code).toBe('TOO_LARGE')
    }
    const small = normalize(`${flood} subscription S { deploymentStatus { text } }`, 'S')
    expect(checkEventLimits(schema, small.normal)).toBeUndefined()
  })

  test('if its names are too long', () => {
    const long = Array.from({ length: 100 }, (_, i) => `${'x'.repeat(100)}${i}: text`).join(' ')
    expect(
      checkEventLimits(schema, normalize(`subscription { deploymentStatus { ${long} } }`).normal)?.code,
    ).toBe('TOO_LARGE')
  })
})
