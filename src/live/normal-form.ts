import { createHash } from 'node:crypto'
import {
  type DefinitionNode,
  type DocumentNode,
  type FragmentDefinitionNode,
  GraphQLObjectType,
  type GraphQLSchema,
  Kind,
  type OperationDefinitionNode,
  parse,
  print,
  type SelectionSetNode,
  TypeInfo,
  visit,
  visitWithTypeInfo,
} from 'graphql'
import { BadUserInputError, type ShipcastError, TooLargeError } from '../errors.ts'

/** An event has a fifth as many fields. */
const MAX_FIELDS = 200
/** In characters, in its normal form, which is kept for as long as the subscription. */
const MAX_DOCUMENT_LENGTH = 10_000

/** A subscription reduced to what determines how its events are encoded. */
export interface NormalForm {
  /** Equal for all subscriptions that, given equal variables, encode an event alike. */
  key: string
  /**
   * Executed for all of them, so that it makes no difference, even in an error, whose document came first.
   */
  document: DocumentNode
  /** The length of the document's text, in characters. */
  length: number
  /** The variables that the normal form still uses. */
  variables: readonly NormalVariable[]
}

interface NormalVariable {
  name: string
  /** The client's name for it. */
  originalName: string
}

/**
 * Removes everything that makes no difference: names of the operation, its fragments and its variables,
 * unused definitions, white space and comments. Arguments are removed as well: the resolver has consumed
 * those of the root field, and its result is part of the shared subscription's key; no other field may have
 * arguments (see `checkEventLimits`).
 */
export function normalForm(document: DocumentNode, operation: OperationDefinitionNode): NormalForm {
  const fragments = fragmentsOf(document)
  const fragmentNames = new Map<string, string>()
  const variableNames = new Map<string, string>()
  const shorten = (selectionSet: SelectionSetNode): SelectionSetNode =>
    visit(selectionSet, {
      Field: ({ arguments: _, ...field }) => field,
      FragmentSpread: (spread) => withName(spread, shortNameFor(fragmentNames, spread.name.value, 'F')),
      Variable: (variable) => withName(variable, shortNameFor(variableNames, variable.name.value, 'v')),
    })
  const selectionSet = shorten(operation.selectionSet)
  const usedFragments: DefinitionNode[] = []
  // A fragment may spread others, which this loop then visits as well.
  for (const [originalName, name] of fragmentNames) {
    const fragment = fragments.get(originalName)
    if (!fragment) continue
    const { kind, typeCondition } = fragment
    const nameless = { kind, typeCondition, selectionSet: shorten(fragment.selectionSet) }
    usedFragments.push({ ...nameless, name: { kind: Kind.NAME, value: name } })
  }
  const definitions = operation.variableDefinitions ?? []
  const variables: NormalVariable[] = []
  const variableDefinitions = []
  for (const [originalName, name] of variableNames) {
    const definition = definitions.find(({ variable }) => variable.name.value === originalName)
    if (!definition) continue
    const { kind, variable, type } = definition
    variableDefinitions.push({ kind, type, variable: withName(variable, name) })
    variables.push({ name, originalName })
  }
  const { kind, operation: operationType } = operation
  const nameless = { kind, operation: operationType, variableDefinitions, selectionSet }
  const text = print({ kind: Kind.DOCUMENT, definitions: [nameless, ...usedFragments] })
  return {
    key: createHash('sha256').update(text).digest('base64url'),
    document: parse(text, { noLocation: true }),
    length: text.length,
    variables,
  }
}

/** The values of the remaining variables, under their new names. `values` are coerced, defaults included. */
export function normalValues(
  { variables }: NormalForm,
  values: Readonly<Record<string, unknown>>,
): Record<string, unknown> {
  const currentValue = (name: string) => (Object.hasOwn(values, name) ? values[name] : undefined)
  return Object.fromEntries(variables.map(({ name, originalName }) => [name, currentValue(originalName)]))
}

const eventSchemas = new WeakMap<GraphQLSchema, GraphQLSchema>()

/** The schema for normal forms: subscription fields have no arguments, not even required ones. */
export function eventSchema(schema: GraphQLSchema): GraphQLSchema {
  let derived = eventSchemas.get(schema)
  if (!derived) {
    derived = withoutSubscriptionArguments(schema)
    eventSchemas.set(schema, derived)
  }
  return derived
}

function withoutSubscriptionArguments(schema: GraphQLSchema): GraphQLSchema {
  const config = schema.getSubscriptionType()?.toConfig()
  if (!config) return schema
  const fields = Object.entries(config.fields).map(([name, field]) => [name, { ...field, args: {} }])
  const subscription = new GraphQLObjectType({ ...config, fields: Object.fromEntries(fields) })
  const getType: GraphQLSchema['getType'] = (name) =>
    name === subscription.name ? subscription : schema.getType(name)
  return Object.assign(Object.create(schema) as GraphQLSchema, { getType, getRootType: () => subscription })
}

/** Why a subscription cannot be executed for every event; undefined: it can. */
export function checkEventLimits(
  schema: GraphQLSchema,
  { document, length }: NormalForm,
): ShipcastError | undefined {
  if (length > MAX_DOCUMENT_LENGTH) {
    return new TooLargeError(
      `The subscription has ${length} characters; at most ${MAX_DOCUMENT_LENGTH} are allowed. Use shorter aliases, or select fewer fields.`,
    )
  }
  const [operation] = document.definitions
  if (operation?.kind !== Kind.OPERATION_DEFINITION) return undefined
  const count = fieldCounter(fragmentsOf(document))(operation.selectionSet)
  if (count > MAX_FIELDS) {
    return new TooLargeError(
      `The subscription selects ${count} fields; at most ${MAX_FIELDS} are allowed. Select fewer.`,
    )
  }
  const field = fieldReadFromDatabase(schema, document)
  if (field === undefined) return undefined
  const reason =
    'cannot be selected in a subscription, because it is read from the database; select it in a query after an event arrives'
  return new BadUserInputError([{ path: field, reason }])
}

/** An event carries its whole state; fields with arguments are read from the database. */
function fieldReadFromDatabase(schema: GraphQLSchema, document: DocumentNode): string | undefined {
  const types = new TypeInfo(schema)
  let found: string | undefined
  const Field = () => {
    const [parent, field] = [types.getParentType(), types.getFieldDef()]
    if (parent && field && parent !== schema.getSubscriptionType() && field.args.length > 0) {
      found ??= `${parent.name}.${field.name}`
    }
  }
  visit(document, visitWithTypeInfo(types, { Field }))
  return found
}

/** Counts the fields of a selection, including those of spread fragments; walks each fragment only once. */
function fieldCounter(
  fragments: ReadonlyMap<string, FragmentDefinitionNode>,
): (selectionSet: SelectionSetNode) => number {
  const counts = new Map<string, number>()
  const countFragment = (name: string): number => {
    const fragment = fragments.get(name)
    const count = counts.get(name) ?? (fragment ? countSelection(fragment.selectionSet) : 0)
    counts.set(name, count)
    return count
  }
  const countSelection = ({ selections }: SelectionSetNode): number =>
    selections.reduce((sum, selection) => {
      if (selection.kind === Kind.FRAGMENT_SPREAD) return sum + countFragment(selection.name.value)
      const nested = selection.selectionSet ? countSelection(selection.selectionSet) : 0
      return sum + nested + (selection.kind === Kind.FIELD ? 1 : 0)
    }, 0)
  return countSelection
}

function fragmentsOf({ definitions }: DocumentNode): Map<string, FragmentDefinitionNode> {
  const fragments = definitions.filter((definition) => definition.kind === Kind.FRAGMENT_DEFINITION)
  return new Map(fragments.map((fragment) => [fragment.name.value, fragment]))
}

/** Numbered in the order of first use. */
function shortNameFor(names: Map<string, string>, originalName: string, prefix: string): string {
  const name = names.get(originalName) ?? `${prefix}${names.size}`
  names.set(originalName, name)
  return name
}

function withName<Node extends { name: { kind: Kind.NAME; value: string } }>(node: Node, name: string): Node {
  return { ...node, name: { kind: Kind.NAME, value: name } }
}
