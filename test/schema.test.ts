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
  const look = (name: string, { description }: { description?: string | null | undefined }) => {
    if (!description?.trim()) missing.push(name)
  }

  for (const type of Object.values(schema.getTypeMap())) {
    if (type.name.startsWith('__') || specifiedScalarTypes.some(({ name }) => name === type.name)) continue
    look(type.name, type)
    if (isEnumType(type)) for (const value of type.getValues()) look(`${type.name}.${value.name}`, value)
    if (isInputObjectType(type))
      for (const field of Object.values(type.getFields())) look(`${type.name}.${field.name}`, field)
    if (!isObjectType(type) && !isInterfaceType(type)) continue
    for (const field of Object.values(type.getFields())) {
      look(`${type.name}.${field.name}`, field)
      for (const argument of field.args) look(`${type.name}.${field.name}(${argument.name})`, argument)
    }
  }
  for (const directive of schema.getDirectives()) {
    look(`@${directive.name}`, directive)
    for (const argument of directive.args) look(`@${directive.name}(${argument.name})`, argument)
  }

  expect(missing).toEqual([])
})

test('the server answers introspection with the schema of schema.gql', async () => {
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
