// Extracts the types that Shipcast's GraphQL documents use from GitHub's own schema, for
// tests that validate them:
//   node scripts/github-graphql.mjs [folder of an installed @octokit/graphql-schema]
// Without a folder, installs the package (8 MB unpacked) into a temporary one and removes it afterwards.
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Kind, parse, print, visit } from 'graphql'

const PACKAGE = '@octokit/graphql-schema@15.26.1'
const SUBSET = fileURLToPath(new URL('../test/support/github/github-subset.graphql', import.meta.url))

/**
 * The fields to extract by type, with all their arguments. Types that these reference
 * are extracted completely.
 */
const FIELDS = {
  Query: ['enterprise'],
  Mutation: ['createEnterpriseOrganization'],
  Enterprise: ['id'],
  CreateEnterpriseOrganizationPayload: ['organization'],
  Organization: ['id', 'login'],
}

let temporary
let folder = process.argv[2]
if (folder === undefined) {
  temporary = mkdtempSync(join(tmpdir(), 'shipcast-graphql-'))
  const options = ['--ignore-scripts', '--no-audit', '--no-fund']
  const npm = spawnSync('npm', ['install', '--prefix', temporary, ...options, PACKAGE], { stdio: 'inherit' })
  if (npm.status !== 0) process.exit(npm.status ?? 1)
  folder = join(temporary, 'node_modules/@octokit/graphql-schema')
}

const { version, license } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'))
const types = new Map()
for (const definition of parse(readFileSync(join(folder, 'schema.graphql'), 'utf8')).definitions) {
  if ('name' in definition && definition.name) types.set(definition.name.value, definition)
}

const extracted = new Map()
for (const name of Object.keys(FIELDS)) extract(name)
const source = `From @octokit/graphql-schema ${version}, license ${license}, by scripts/github-graphql.mjs. Its notice:`
const notice = readFileSync(join(folder, 'LICENSE.md'), 'utf8').trim()
const comment = `${source}\n\n${notice}`.replaceAll(/^/gm, '# ').replaceAll(/ +$/gm, '')
writeFileSync(SUBSET, `${comment}\n\n${[...extracted.values()].map((each) => print(each)).join('\n\n')}\n`)
console.log(`${extracted.size} types of @octokit/graphql-schema ${version} written to ${SUBSET}`)
if (temporary) rmSync(temporary, { recursive: true, force: true })

/**
 * Extracts a type without descriptions, directives and interfaces; of types in FIELDS, only
 * the fields listed there.
 */
function extract(name) {
  if (extracted.has(name) || !types.has(name)) return
  const definition = types.get(name)
  const fieldNames = FIELDS[name]
  const missing = fieldNames?.find((field) => !definition.fields.some((each) => each.name.value === field))
  if (missing) throw new Error(`GitHub's type ${name} does not have the field ${missing}.`)
  const fields = definition.fields?.filter((field) => !fieldNames || fieldNames.includes(field.name.value))
  const reduced = {
    ...definition,
    ...(fields && { fields }),
    ...(definition.interfaces && { interfaces: [] }),
  }
  const plain = visit(reduced, {
    enter: (node) =>
      node.kind === Kind.DIRECTIVE
        ? null
        : node.description
          ? { ...node, description: undefined }
          : undefined,
  })
  extracted.set(name, plain)
  visit(plain, { NamedType: (node) => extract(node.name.value) })
}
