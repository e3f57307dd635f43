import {
  type GraphQLInputField,
  type GraphQLInputObjectType,
  type GraphQLInputType,
  type GraphQLLeafType,
  type GraphQLSchema,
  getNamedType,
  isEnumType,
  isInputObjectType,
  isInputType,
  isListType,
  isNonNullType,
  isSpecifiedScalarType,
  type OperationDefinitionNode,
  typeFromAST,
  valueFromAST,
} from 'graphql'
import { BadUserInputError } from '../errors.ts'

/** Items of a list, unless its field sets `extensions.maxItems`. */
const MAX_LIST_ITEMS = 1_000
/** Nesting of lists and objects. */
const MAX_DEPTH = 30
/** The messages of graphql-js repeat the value, however long it is. */
const MAX_REASON_LENGTH = 200
const MAX_NAME_LENGTH = 50

/**
 * Coerces the variables of an operation (GraphQL specification, 6.1.2), in one pass that stops at the first
 * error. Lists are bounded and unknown keys are refused, so that the time depends on what the schema allows,
 * not on what was sent. The function of graphql-js is several times slower, and describes each of a million
 * errors with the whole input.
 * @throws BadUserInputError
 */
export function coerceVariables(
  schema: GraphQLSchema,
  operation: OperationDefinitionNode,
  values: Readonly<Record<string, unknown>>,
): Record<string, unknown> {
  const coerced: Record<string, unknown> = {}
  for (const { variable, type: typeNode, defaultValue } of operation.variableDefinitions ?? []) {
    const name = variable.name.value
    const type = typeFromAST(schema, typeNode)
    // Validation has ensured this.
    if (!isInputType(type)) throw new Error(`The variable $${name} has no input type.`)
    if (isSet(values, name)) {
      coerced[name] = coercerOf(type)(values[name], [name])
    } else if (defaultValue) {
      coerced[name] = valueFromAST(defaultValue, type)
    } else if (isNonNullType(type)) {
      throwFieldError([name], `is required (${type})`)
    }
  }
  return coerced
}

/** Variable, field names and list indexes. Shared: a function that extends a path restores it. */
type Path = (string | number)[]
type Coercer = (value: unknown, path: Path) => unknown

const coercers = new WeakMap<GraphQLInputType, Coercer>()

/** Created once for each type: determining a type's kind would otherwise take most of the time. */
function coercerOf(type: GraphQLInputType): Coercer {
  let coercer = coercers.get(type)
  if (!coercer) {
    coercer = createCoercer(type, MAX_LIST_ITEMS)
    coercers.set(type, coercer)
  }
  return coercer
}

function createCoercer(type: GraphQLInputType, maxItems: number): Coercer {
  if (isNonNullType(type)) {
    const coerce = createCoercer(type.ofType, maxItems)
    return (value, path) => (value === null ? throwFieldError(path, 'must not be null') : coerce(value, path))
  }
  const coerce = isListType(type)
    ? listCoercer(type.ofType, maxItems)
    : isInputObjectType(type)
      ? objectCoercer(type)
      : leafCoercer(type)
  return (value, path) => (value === null ? null : coerce(value, path))
}

function listCoercer(itemType: GraphQLInputType, maxListItems: number): Coercer {
  const coerceItem = coercerOf(itemType)
  const named = getNamedType(itemType)
  // An enum list needs no more items than the enum has values.
  const maxItems = isEnumType(named) ? named.getValues().length : maxListItems
  return (value, path) => {
    // The specification's "list of size one".
    if (!Array.isArray(value)) return [coerceItem(value, path)]
    if (value.length > maxItems)
      throwFieldError(path, `must have at most ${maxItems} items, but has ${value.length}`)
    const depth = descend(path)
    return value.map((item: unknown, index) => {
      path[depth] = index
      const coerced = coerceItem(item, path)
      path.length = depth
      return coerced
    })
  }
}

function objectCoercer(type: GraphQLInputObjectType): Coercer {
  // Created on first use: a type can have fields of the same type.
  let fields: readonly FieldCoercer[] | undefined
  return (value, path) => {
    if (!isObject(value)) throwFieldError(path, `must be an object of type ${type.name}`)
    fields ??= Object.values(type.getFields()).map(fieldCoercer)
    const coerced: Record<string, unknown> = {}
    const depth = descend(path)
    let known = 0
    for (const field of fields) {
      path[depth] = field.name
      if (isSet(value, field.name)) {
        known++
        coerced[field.name] = field.coerce(value[field.name], path)
      } else if (field.defaultValue !== undefined) {
        coerced[field.name] = field.defaultValue
      } else if (field.isRequired) {
        throwFieldError(path, 'is required')
      }
    }
    path.length = depth
    const names = Object.keys(value)
    if (names.length > known) rejectUnknownFields(names, type, path)
    if (type.isOneOf) checkOneOf(coerced, type, path)
    return coerced
  }
}

interface FieldCoercer {
  name: string
  coerce: Coercer
  defaultValue: unknown
  isRequired: boolean
}

function fieldCoercer({ name, type, defaultValue, extensions }: GraphQLInputField): FieldCoercer {
  const { maxItems } = extensions
  const coerce = typeof maxItems === 'number' ? createCoercer(type, maxItems) : coercerOf(type)
  return { name, coerce, defaultValue, isRequired: isNonNullType(type) }
}

function leafCoercer(type: GraphQLLeafType): Coercer {
  const isEnum = isEnumType(type)
  // The messages of graphql-js would print the whole list or object.
  const acceptsObjects = !isEnum && !isSpecifiedScalarType(type)
  return (value, path) => {
    if (typeof value === 'object' && !acceptsObjects) {
      throwFieldError(
        path,
        `must be of type ${type.name}, but is ${Array.isArray(value) ? 'a list' : 'an object'}`,
      )
    }
    let parsed: unknown
    try {
      // Without "Did you mean …", which is slow for a long string.
      parsed = isEnum ? type.parseValue(value, isLong(value)) : type.parseValue(value)
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error)
      throwFieldError(path, `is not valid: ${shorten(reason, MAX_REASON_LENGTH)}`)
    }
    return parsed === undefined ? throwFieldError(path, `must be of type ${type.name}`) : parsed
  }
}

function rejectUnknownFields(names: readonly string[], type: GraphQLInputObjectType, path: Path): void {
  const fields = type.getFields()
  const unknown = names.find((name) => !Object.hasOwn(fields, name))
  // A known field may be `undefined` if the values do not come from JSON.
  if (unknown !== undefined)
    throwFieldError([...path, shorten(unknown, MAX_NAME_LENGTH)], `is not a field of ${type.name}`)
}

function checkOneOf(
  coerced: Readonly<Record<string, unknown>>,
  type: GraphQLInputObjectType,
  path: Path,
): void {
  const values = Object.values(coerced)
  if (values.length === 1 && values[0] !== null) return
  const names = Object.keys(type.getFields()).map((name) => `"${name}"`)
  throwFieldError(path, `must have exactly one of ${names.join(' and ')}, and it must not be null`)
}

/** Returns the index of the path's next step. */
function descend(path: Path): number {
  if (path.length > MAX_DEPTH)
    throwFieldError(path, `is nested too deeply; at most ${MAX_DEPTH} levels are allowed`)
  return path.length
}

function throwFieldError([variable, ...steps]: Path, reason: string): never {
  const rest = steps.map((step) => (typeof step === 'number' ? `[${step}]` : `.${step}`))
  throw new BadUserInputError([{ path: `${variable}${rest.join('')}`, reason }])
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function isSet(values: Readonly<Record<string, unknown>>, name: string): boolean {
  return Object.hasOwn(values, name) && values[name] !== undefined
}

function isLong(value: unknown): boolean {
  return typeof value === 'string' && value.length > MAX_NAME_LENGTH
}

function shorten(text: string, maxLength: number): string {
  return text.length > maxLength ? `${text.slice(0, maxLength - 1).toWellFormed()}…` : text
}
