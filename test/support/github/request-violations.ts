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

/** Where a redirect leads: not described, and not of our choosing. */
const AFTER_REDIRECT = /^(GET|PATCH) \/repositories\/\d+$/

const subset: OpenApiSubset = JSON.parse(
  readFileSync(new URL('./openapi-subset.json', import.meta.url), 'utf8'),
)
const ajv = new Ajv({ strict: false, allErrors: true })
ajv.addSchema({ $id: 'github', definitions: subset.definitions })
const validators = new Map<string, ValidateFunction>()

/**
 * What GitHub's own OpenAPI description has against a request; see scripts/github-openapi.mjs. A property that it does
 * not know is a violation, too: GitHub would not say so.
 */
export function requestViolations(
  method: string,
  path: string,
  body: Record<string, unknown> | undefined,
): string[] {
  const line = `${method} ${path}`
  if (AFTER_REDIRECT.test(line)) return []
  const found = Object.entries(subset.operations).find(([name]) => operationPattern(name).test(line))
  if (!found) return [`${line}: no such operation`]
  const [name, operation] = found
  if (body === undefined) return operation.isBodyRequired ? [`${line}: no body`] : []
  if (operation.body === null) return [`${line}: a body`]
  const unknown = Object.keys(body).filter((key) => !(key in (operation.body?.properties ?? {})))
  let validate = validators.get(name)
  if (!validate) {
    validate = ajv.compile(JSON.parse(JSON.stringify(operation.body).replaceAll('"#/', '"github#/')))
    validators.set(name, validate)
  }
  const isValid = validate(body)
  const faults = isValid ? [] : (validate.errors ?? []).map((each) => `${each.instancePath} ${each.message}`)
  return [...unknown.map((key) => `unknown property ${key}`), ...faults].map((fault) => `${line}: ${fault}`)
}

function operationPattern(name: string): RegExp {
  return new RegExp(`^${name.replaceAll(/\{\w+\}/g, '[^/?]+')}$`)
}
