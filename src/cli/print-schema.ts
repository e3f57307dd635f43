import 'reflect-metadata'
import { readFileSync, writeFileSync } from 'node:fs'
import { ModulesContainer, NestFactory } from '@nestjs/core'
import { GraphQLSchemaBuilderModule, GraphQLSchemaFactory } from '@nestjs/graphql'
import { type GraphQLSchema, printSchema } from 'graphql'
import { AppModule } from '../app.module.ts'
import { Config } from '../config/config.ts'
import { describeRootTypes } from '../graphql/root-types.ts'

// Writes the schema of the code to a file; with --check, fails if the file differs.
const args = process.argv.slice(2)
const isCheck = args.includes('--check')
const file = args.find((arg) => !arg.startsWith('--')) ?? 'schema.gql'

const schema = `# Generated from the code by "npm run schema". Do not edit.\n\n${printSchema(await buildSchema())}\n`
if (!isCheck) {
  writeFileSync(file, schema)
} else if (readFileSync(file, 'utf8') !== schema) {
  console.error(`${file} does not match the code. Run "npm run schema" and commit the result.`)
  process.exitCode = 1
}

async function buildSchema(): Promise<GraphQLSchema> {
  const app = await NestFactory.create(GraphQLSchemaBuilderModule, { logger: false })
  await app.init()
  const schema = await app.get(GraphQLSchemaFactory).create(await providerClasses())
  await app.close()
  return describeRootTypes(schema)
}

/** All provider classes; the factory picks the resolvers. Preview mode instantiates none of them. */
async function providerClasses(): Promise<NewableFunction[]> {
  const options = { preview: true, logger: false } as const
  const app = await NestFactory.createApplicationContext(AppModule.forRoot(new Config({})), options)
  const modules = [...app.get(ModulesContainer).values()]
  const providers = modules.flatMap((module) => [...module.providers.values()])
  return [...new Set(providers.flatMap(({ metatype, inject }) => (metatype && !inject ? [metatype] : [])))]
}
