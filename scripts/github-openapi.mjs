// Extracts the operations that Shipcast uses from GitHub's own OpenAPI description; tests
// validate requests by it:
//   node scripts/github-openapi.mjs [folder of an installed @octokit/openapi]
// Without a folder, installs the package (385 MB unpacked) into a temporary one and removes it afterwards.
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const PACKAGE = '@octokit/openapi@23.0.2'
const SUBSET = fileURLToPath(new URL('../test/support/github/openapi-subset.json', import.meta.url))

/** The operations to extract, by file of the package. */
const OPERATIONS = {
  'api.github.com.json': [
    'GET /user',
    'GET /user/memberships/orgs/{org}',
    'POST /user/repos',
    'GET /orgs/{org}',
    'POST /orgs/{org}/repos',
    'GET /orgs/{org}/installation',
    'GET /users/{username}/installation',
    'POST /app/installations/{installation_id}/access_tokens',
    'GET /repos/{owner}/{repo}',
    'PATCH /repos/{owner}/{repo}',
    'DELETE /repos/{owner}/{repo}',
  ],
  'ghes-3.19.json': ['POST /admin/organizations'],
}

/** Keywords that do not affect validation. */
const OMITTED_KEYWORDS = new Set([
  'description',
  'example',
  'examples',
  'externalDocs',
  'summary',
  'responses',
  'x-github',
  'tags',
])

let temporary
let folder = process.argv[2]
if (folder === undefined) {
  temporary = mkdtempSync(join(tmpdir(), 'shipcast-openapi-'))
  const npm = spawnSync(
    'npm',
    ['install', '--prefix', temporary, '--ignore-scripts', '--no-audit', '--no-fund', PACKAGE],
    {
      stdio: 'inherit',
    },
  )
  if (npm.status !== 0) process.exit(npm.status ?? 1)
  folder = join(temporary, 'node_modules/@octokit/openapi')
}

const { version, license } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'))
const subset = {
  source: `@octokit/openapi ${version}, license ${license}`,
  notice: readFileSync(join(folder, 'LICENSE'), 'utf8'),
  operations: {},
  definitions: {},
}
for (const [file, names] of Object.entries(OPERATIONS)) {
  const spec = JSON.parse(readFileSync(join(folder, 'generated', file), 'utf8'))
  for (const name of names) {
    const [method, path] = name.split(' ')
    const operation = spec.paths[path]?.[method.toLowerCase()]
    if (!operation) throw new Error(`${file} does not contain ${name}.`)
    const body = operation.requestBody?.content['application/json'].schema ?? null
    subset.operations[name] = {
      isBodyRequired: operation.requestBody?.required ?? false,
      body: toJsonSchema(body, spec),
    }
  }
}
writeFileSync(SUBSET, `${JSON.stringify(subset, null, 1)}\n`)
console.log(`${Object.keys(subset.operations).length} operations of ${subset.source} written to ${SUBSET}`)
if (temporary) rmSync(temporary, { recursive: true, force: true })

/**
 * Converts a schema of OpenAPI 3.0 to JSON Schema: no descriptions, `nullable` as a type,
 * references as definitions.
 */
function toJsonSchema(schema, spec) {
  if (Array.isArray(schema)) return schema.map((each) => toJsonSchema(each, spec))
  if (typeof schema !== 'object' || schema === null) return schema
  if (typeof schema.$ref === 'string') {
    const name = schema.$ref.split('/').at(-1)
    if (!(name in subset.definitions)) {
      subset.definitions[name] = {} // it may reference itself
      subset.definitions[name] = toJsonSchema(
        schema.$ref
          .slice(2)
          .split('/')
          .reduce((at, key) => at[key], spec),
        spec,
      )
    }
    return { $ref: `#/definitions/${name}` }
  }
  const { nullable, ...rest } = schema
  const entries = Object.entries(rest)
    .filter(([key]) => !OMITTED_KEYWORDS.has(key))
    .map(([key, value]) => [key, key === 'properties' ? properties(value, spec) : toJsonSchema(value, spec)])
  const converted = Object.fromEntries(entries)
  return nullable ? { anyOf: [converted, { type: 'null' }] } : converted
}

/** Keys of `properties` are names, not keywords: a property may be called `description`. */
function properties(value, spec) {
  return Object.fromEntries(Object.entries(value).map(([name, schema]) => [name, toJsonSchema(schema, spec)]))
}
