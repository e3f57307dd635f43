import { readFileSync } from 'node:fs'
import { Ajv, type ValidateFunction } from 'ajv'

interface Operation {
  isBodyRequired: boolean
  body: { properties?: Record<string, unknown> } | null
}

interface OpenApiSubset {
  operations: Record<string, Operation>
  definitions: Record<string, unknown>
}

/** The target of GitHub's redirects, which its description does not contain. */
const AFTER_REDIRECT = /^(GET|PATCH) \/repositories\/\d+$/

const subset: OpenApiSubset = JSON.parse(
  readFileSync(new URL('./openapi-subset.json', import.meta.url), 'utf8'),
)
const ajv = new Ajv({ strict: false, allErrors: true })
ajv.addSchema({ $id: 'github', definitions: subset.definitions })
const validators = new Map<string, ValidateFunction>()

/**
 * Validates a request against GitHub's own OpenAPI description; see scripts/github-openapi.mjs. An unknown
 * property is also a violation, although GitHub would ignore it.
 */
export function requestViolations(
  method: string,
  path: string,
  body: Record<string, unknown> | undefined,
): string[] {
  const line = `${method} ${path}`
  if (AFTER_REDIRECT.test(line)) return []
  const found = Object.entries(subset.operations).find(([name]) => operationPattern(name).test(line))
  if (!found) return [`${line}: unknown operation`]
  const [name, operation] = found
  if (body === undefined) return operation.isBodyRequired ? [`${line}: missing body`] : []
  if (operation.body === null) return [`${line}: unexpected body`]
  const unknown = Object.keys(body).filter((key) => !(key in (operation.body?.properties ?? {})))
  let validate = validators.get(name)
  if (!validate) {
    validate = ajv.compile(JSON.parse(JSON.stringify(operation.body).replaceAll('"#/', '"github#/')))
    validators.set(name, validate)
  }
  const isValid = validate(body)
  const invalid = isValid ? [] : (validate.errors ?? []).map((each) => `${each.instancePath} ${each.message}`)
  return [...unknown.map((key) => `unknown property ${key}`), ...invalid].map((text) => `${line}: ${text}`)
}

function operationPattern(name: string): RegExp {
  return new RegExp(`^${name.replaceAll(/\{\w+\}/g, '[^/?]+')}$`)
}
