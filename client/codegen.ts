/*
 * Writes src/gql: the types of every operation in the page. Uses GraphQL Code Generator's programmatic API, because its
 * command line would add 200 packages to the installation.
 */
import { globSync } from 'node:fs'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { preset } from '@graphql-codegen/client-preset'
import { codegen } from '@graphql-codegen/core'
import { buildSchema, parse, Source } from 'graphql'
import ts from 'typescript'

const ROOT = join(import.meta.dirname, '..')
const OUTPUT = join(import.meta.dirname, 'src/gql/')

const config = {
  inlineFragmentTypes: 'mask',
  customDirectives: { apolloUnmask: true },
  scalars: { DateTime: 'string' },
  defaultScalarType: 'unknown',
  nonOptionalTypename: true,
  skipTypeNameForRoot: true,
  enumsAsTypes: true,
  useTypeImports: true,
  importExtension: '.ts' as const,
}

await generateOperations()

async function generateOperations(): Promise<void> {
  const schemaText = await readFile(join(ROOT, 'schema.gql'), 'utf8')
  const outputs = await preset.buildGeneratesSection({
    baseOutputDir: OUTPUT,
    schema: parse(schemaText),
    schemaAst: buildSchema(schemaText),
    documents: await readOperations(),
    config,
    // Masking is Apollo Client's own, at run time (`dataMasking`); only the masked types come from here.
    presetConfig: { fragmentMasking: false },
    plugins: [],
    pluginMap: {},
  })
  await mkdir(OUTPUT, { recursive: true })
  for (const output of outputs) await writeIfChanged(output.filename, await codegen(output))
}

/** Every document that is the argument of a call of `graphql`. */
async function readOperations() {
  const documents = []
  const paths = globSync('client/src/**/*.{ts,tsx}', { cwd: ROOT, exclude: ['client/src/gql/**'] })
  for (const path of paths.sort()) {
    const text = await readFile(join(ROOT, path), 'utf8')
    for (const rawSDL of templatesIn(ts.createSourceFile(path, text, ts.ScriptTarget.Latest)))
      documents.push({ location: path, rawSDL, document: parse(new Source(rawSDL, path)) })
  }
  return documents
}

function templatesIn(node: ts.Node): string[] {
  const templates: string[] = []
  ts.forEachChild(node, (child) => void templates.push(...templatesIn(child)))
  if (!ts.isCallExpression(node) || !ts.isIdentifier(node.expression)) return templates
  const [template] = node.arguments
  if (node.expression.text === 'graphql' && template && ts.isNoSubstitutionTemplateLiteral(template))
    templates.push(template.text)
  return templates
}

/** Vite reloads the page for every file that is written. */
async function writeIfChanged(path: string, text: string): Promise<void> {
  if ((await readFile(path, 'utf8').catch(() => undefined)) !== text) await writeFile(path, text)
}
