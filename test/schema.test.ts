import { readFile } from 'node:fs/promises'
import { expect, test } from '@jest/globals'
import {
  buildClientSchema,
  buildSchema,
  type GraphQLSchema,
  getIntrospectionQuery,
  type IntrospectionQuery,
  isEnumType,
  isInputObjectType,
  isInterfaceType,
  isObjectType,
  lexicographicSortSchema,
  printSchema,
  specifiedScalarTypes,
} from 'graphql'
import { TestServer } from './support/test-server.ts'

test('every type, field, argument, input field and enum value has a description', async () => {
  const schema = buildSchema(await readFile('schema.gql', 'utf8'))
  const missing: string[] = []
  const check = (name: string, { description }: { description?: string | null | undefined }) => {
    if (!description?.trim()) missing.push(name)
  }

  for (const type of Object.values(schema.getTypeMap())) {
    if (type.name.startsWith('__') || specifiedScalarTypes.some(({ name }) => name === type.name)) continue
    check(type.name, type)
    if (isEnumType(type)) for (const value of type.getValues()) check(`${type.name}.${value.name}`, value)
    if (isInputObjectType(type))
      for (const field of Object.values(type.getFields())) check(`${type.name}.${field.name}`, field)
    if (!isObjectType(type) && !isInterfaceType(type)) continue
    for (const field of Object.values(type.getFields())) {
      check(`${type.name}.${field.name}`, field)
      for (const argument of field.args) check(`${type.name}.${field.name}(${argument.name})`, argument)
    }
  }
  for (const directive of schema.getDirectives()) {
    check(`@${directive.name}`, directive)
    for (const argument of directive.args) check(`@${directive.name}(${argument.name})`, argument)
  }

  expect(missing).toEqual([])
})

test('introspection returns the schema of schema.gql', async () => {
  const server = await TestServer.start()
  try {
    const query = getIntrospectionQuery({ specifiedByUrl: true, inputValueDeprecation: true, oneOf: true })
    const { data } = await server.request<IntrospectionQuery>(query)
    const printed = (schema: GraphQLSchema) => printSchema(lexicographicSortSchema(schema))
    expect(printed(buildClientSchema(data))).toBe(printed(buildSchema(await readFile('schema.gql', 'utf8'))))
  } finally {
    await server.stop()
    await server.removeData()
  }
})
