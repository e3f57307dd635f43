import 'reflect-metadata'
import { readFileSync, writeFileSync } from 'node:fs'
import { NestFactory } from '@nestjs/core'
import { GraphQLSchemaBuilderModule, GraphQLSchemaFactory } from '@nestjs/graphql'
import { printSchema } from 'graphql'
import { AuthResolver } from '../auth/auth.resolver.ts'
import { DeploymentsResolver } from '../deployments/deployments.resolver.ts'
import { describeRootTypes } from '../graphql/root-types.ts'

// Writes the schema that the code makes, or with --check says whether the file holds just that.
const args = process.argv.slice(2)
const isCheck = args.includes('--check')
const file = args.find((arg) => !arg.startsWith('--')) ?? 'schema.gql'

const app = await NestFactory.create(GraphQLSchemaBuilderModule, { logger: false })
await app.init()
const schema = `# Made by "npm run schema" from the code. Do not edit.\n\n${printSchema(
  describeRootTypes(await app.get(GraphQLSchemaFactory).create([DeploymentsResolver, AuthResolver])),
)}\n`
await app.close()

if (!isCheck) {
  writeFileSync(file, schema)
} else if (readFileSync(file, 'utf8') !== schema) {
  console.error(`${file} is not what the code makes. Run "npm run schema" and commit the result.`)
  process.exitCode = 1
}
