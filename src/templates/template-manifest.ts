import { validateText } from '../deployments/contents/name-rules.ts'
import type { VariableInput } from '../deployments/deploy-input.ts'
import { type FieldError, quote } from '../errors.ts'
import type { LoadedTemplate } from './load-template.ts'
import type { Delimiters } from './render-template.ts'

export interface TemplateVariable {
  name: string
  description: string
  default: string | null
  required: boolean
  /** What the whole of a value has to match; null: any value will do. */
  pattern: RegExp | null
}

/** What `template.json` says. */
export interface TemplateManifest {
  title: string
  description: string
  variables: TemplateVariable[]
  /** Globs of files, from `files/` on, that are not rendered. */
  verbatim: string[]
  delimiters: Delimiters
}

/** Set by Shipcast in every template; a template cannot declare them. */
export const BUILT_INS = ['org', 'repo', 'description', 'branch'] as const

const MAX_VARIABLES = 100
export const MAX_VALUE_LENGTH = 64 * 1024

/** Reads the manifest's JSON; what is wrong with it is added to `faults`, with the field as the path. */
export function readManifest(json: string, faults: FieldError[]): TemplateManifest {
  const reader = new FieldReader(faults)
  const manifest = reader.object(parseJson(json, faults), '', [
    'title',
    'description',
    'variables',
    'verbatim',
    'delimiters',
  ])
  return {
    title: reader.text(manifest.title, 'title'),
    description: reader.text(manifest.description, 'description'),
    variables: readVariables(reader, manifest.variables ?? []),
    verbatim: reader
      .list(manifest.verbatim ?? [], 'verbatim')
      .map((glob, n) => reader.text(glob, `verbatim[${n}]`)),
    delimiters: readDelimiters(reader, manifest.delimiters ?? ['{{', '}}']),
  }
}

function parseJson(json: string, faults: FieldError[]): unknown {
  try {
    return JSON.parse(json)
  } catch (error) {
    faults.push({ path: '', reason: `is not JSON: ${error instanceof Error ? error.message : error}` })
    return {}
  }
}

function readVariables(reader: FieldReader, value: unknown): TemplateVariable[] {
  const items = reader.list(value, 'variables')
  if (items.length > MAX_VARIABLES) reader.addError('variables', `must be at most ${MAX_VARIABLES}`)
  const names = new Set<string>(BUILT_INS)
  return items.map((item, n) => {
    const at = `variables[${n}]`
    const fields = reader.object(item, at, ['name', 'description', 'default', 'required', 'pattern'])
    const name = reader.text(fields.name, `${at}.name`)
    // Mustache looks names up in a plain object: what every object has would not be ours.
    if (!/^[A-Za-z][A-Za-z0-9_]{0,63}$/.test(name) || name in {}) {
      reader.addError(`${at}.name`, 'must be a letter, then letters, digits or underscores, 64 at most')
    }
    if (names.has(name)) reader.addError(`${at}.name`, `is "${name}", which is built in or declared before`)
    names.add(name)
    const required = fields.required ?? false
    if (typeof required !== 'boolean') reader.addError(`${at}.required`, 'must be true or false')
    const byDefault = fields.default ?? null
    if (byDefault !== null && typeof byDefault !== 'string')
      reader.addError(`${at}.default`, 'must be a string')
    if (byDefault !== null && required === true) {
      reader.addError(`${at}.required`, 'must not be true beside a default')
    }
    const pattern = readPattern(reader, fields.pattern ?? null, `${at}.pattern`)
    if (typeof byDefault === 'string') {
      for (const reason of validateValue(byDefault, pattern)) reader.addError(`${at}.default`, reason)
    }
    return {
      name,
      description: reader.text(fields.description, `${at}.description`),
      default: typeof byDefault === 'string' ? byDefault : null,
      required: required === true,
      pattern,
    }
  })
}

function readPattern(reader: FieldReader, value: unknown, at: string): RegExp | null {
  if (value === null) return null
  try {
    return new RegExp(`^(?:${reader.text(value, at)})$`, 'u')
  } catch (error) {
    reader.addError(at, `is not a regular expression: ${error instanceof Error ? error.message : error}`)
    return null
  }
}

function readDelimiters(reader: FieldReader, value: unknown): Delimiters {
  const [open, close, ...more] = reader.list(value, 'delimiters')
  const areFit = [open, close].every((item) => typeof item === 'string' && /^[^\s=/\p{Cc}]{2,8}$/u.test(item))
  if (typeof open === 'string' && typeof close === 'string' && areFit && more.length === 0)
    return [open, close]
  reader.addError(
    'delimiters',
    'must be two strings of 2 to 8 characters, without spaces, "=" and "/", such as ["<%", "%>"]',
  )
  return ['{{', '}}']
}

/** The rules for a variable's value, given or by default. */
export function validateValue(value: string, pattern: RegExp | null): string[] {
  if (value.length > MAX_VALUE_LENGTH || Buffer.byteLength(value) > MAX_VALUE_LENGTH) {
    return [`must be at most ${MAX_VALUE_LENGTH} bytes`]
  }
  const reasons = validateText(value)
  if (pattern && !pattern.test(value)) reasons.push(`must match the pattern ${pattern.source}`)
  return reasons
}

/** Reads values of unknown type; whatever is not as asked becomes a fault and a harmless value. */
class FieldReader {
  private readonly errors: FieldError[]

  constructor(faults: FieldError[]) {
    this.errors = faults
  }

  addError(path: string, reason: string): void {
    this.errors.push({ path, reason })
  }

  text(value: unknown, path: string): string {
    if (typeof value === 'string' && value.trim() !== '') return value
    this.addError(path, 'must be a text that is not empty')
    return ''
  }

  list(value: unknown, path: string): unknown[] {
    if (Array.isArray(value)) return value
    this.addError(path, 'must be a list')
    return []
  }

  /** Refuses fields that are not `known`: a misspelt one would have no effect otherwise. */
  object(value: unknown, path: string, known: readonly string[]): Partial<Record<string, unknown>> {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) {
      this.addError(path, 'must be an object')
      return {}
    }
    for (const key of Object.keys(value)) {
      if (!known.includes(key)) this.addError(path === '' ? key : `${path}.${key}`, 'is not a known field')
    }
    return { ...value }
  }
}

/** What every template may use without declaring it. */
export type BuiltIns = Readonly<Record<(typeof BUILT_INS)[number], string>>

export interface ResolvedVariables {
  /** By name, all that the template may use. */
  values: Record<string, string>
  /** Which of the input's variables gave the value, for faults that show later. */
  inputIndexes: ReadonlyMap<string, number>
  errors: FieldError[]
}

const INPUT_PATH = 'input.contents.template.variables'
/** So many faults of one request are worth making. */
const MAX_INPUT_VARIABLES = 1000

/** What is given, else the default, else nothing. */
export function resolveVariables(
  { name: template, manifest }: LoadedTemplate,
  given: readonly VariableInput[],
  builtIns: BuiltIns,
): ResolvedVariables {
  const faults: FieldError[] = []
  const givenAt = new Map<string, number>()
  const values: Record<string, string> = { ...builtIns }
  for (const variable of manifest.variables) values[variable.name] = variable.default ?? ''
  if (given.length > MAX_INPUT_VARIABLES)
    faults.push({ path: INPUT_PATH, reason: `must be at most ${MAX_INPUT_VARIABLES}` })

  const declared = new Map(manifest.variables.map((variable) => [variable.name, variable]))
  const names = [...declared.keys()].join(', ') || 'none'
  for (const [index, { name, value }] of given.slice(0, MAX_INPUT_VARIABLES).entries()) {
    const first = givenAt.get(name)
    if (BUILT_INS.some((builtIn) => builtIn === name)) {
      faults.push({
        path: `${INPUT_PATH}[${index}].name`,
        reason: `is "${name}", which is taken from the input itself`,
      })
    } else if (!declared.has(name)) {
      const reason = `is ${quote(name)}, which is not a variable of "${template}"; there are: ${names}`
      faults.push({ path: `${INPUT_PATH}[${index}].name`, reason })
    } else if (first !== undefined) {
      faults.push({
        path: `${INPUT_PATH}[${index}].name`,
        reason: `is the same as ${INPUT_PATH}[${first}].name: "${name}"`,
      })
    } else {
      givenAt.set(name, index)
      values[name] = value
      const { pattern = null } = declared.get(name) ?? {}
      for (const reason of validateValue(value, pattern))
        faults.push({ path: `${INPUT_PATH}[${index}].value`, reason })
    }
  }
  for (const { name, description, required } of manifest.variables) {
    if (!required || values[name] !== '') continue
    const index = givenAt.get(name)
    if (index === undefined) faults.push({ path: INPUT_PATH, reason: `must have "${name}": ${description}` })
    else faults.push({ path: `${INPUT_PATH}[${index}].value`, reason: `must not be empty: ${description}` })
  }
  return { values, inputIndexes: givenAt, errors: faults }
}
