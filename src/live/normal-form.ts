import { createHash } from 'node:crypto'
import {
  type DefinitionNode,
  type DocumentNode,
  type FragmentDefinitionNode,
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

/** Everything that there is to know of an event is a fifth of it. */
const MAX_FIELDS = 200
/** In characters, without what makes no difference. It is kept as long as somebody subscribes. */
const MAX_DOCUMENT_LENGTH = 10_000

/** A subscription without all that does not change what its events look like. */
export interface NormalForm {
  /** The same for all subscriptions whose events are answered alike, given the same values of variables. */
  key: string
  /** What is executed for all of them: whose document came first makes no difference, not even in an error. */
  document: DocumentNode
  /** Of the document's text. */
  length: number
  /** The variables that are left. */
  variables: readonly NormalVariable[]
}

interface NormalVariable {
  name: string
  /** What the client calls it. */
  originalName: string
}

/**
 * Takes out what makes no difference: names of the operation, its fragments and its variables, what it does not use,
 * white space and comments. Arguments of fields go as well: those of the root field have been used up when its resolver
 * said what to follow, which is part of the group's key, and no other field may have any (see `refuseForEvents`).
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
  const used: DefinitionNode[] = []
  // A fragment may use others, which then come behind it.
  for (const [originalName, name] of fragmentNames) {
    const fragment = fragments.get(originalName)
    if (!fragment) continue
    const { kind, typeCondition } = fragment
    const rest = { kind, typeCondition, selectionSet: shorten(fragment.selectionSet) }
    used.push({ ...rest, name: { kind: Kind.NAME, value: name } })
  }
  const definitions = operation.variableDefinitions ?? []
  const variables: NormalVariable[] = []
  const types = []
  for (const [originalName, name] of variableNames) {
    const definition = definitions.find(({ variable }) => variable.name.value === originalName)
    if (!definition) continue
    const { kind, variable, type } = definition
    types.push({ kind, type, variable: withName(variable, name) })
    variables.push({ name, originalName })
  }
  const { kind, operation: operationType } = operation
  const nameless = { kind, operation: operationType, variableDefinitions: types, selectionSet }
  const text = print({ kind: Kind.DOCUMENT, definitions: [nameless, ...used] })
  return {
    key: createHash('sha256').update(text).digest('base64url'),
    document: parse(text, { noLocation: true }),
    length: text.length,
    variables,
  }
}

/** The values of what is left, under its new names. `values` are coerced: defaults are among them. */
export function normalValues(
  { variables }: NormalForm,
  values: Readonly<Record<string, unknown>>,
): Record<string, unknown> {
  const given = (name: string) => (Object.hasOwn(values, name) ? values[name] : undefined)
  return Object.fromEntries(variables.map(({ name, originalName }) => [name, given(originalName)]))
}

/** What a subscription may not ask for, since it is executed for each event and each group. */
export function checkEventLimits(
  schema: GraphQLSchema,
  { document, length }: NormalForm,
): ShipcastError | undefined {
  if (length > MAX_DOCUMENT_LENGTH) {
    return new TooLargeError(
      `The subscription has ${length} characters; at most ${MAX_DOCUMENT_LENGTH} are allowed. Use shorter names, or ask for less.`,
    )
  }
  const [operation] = document.definitions
  if (operation?.kind !== Kind.OPERATION_DEFINITION) return undefined
  const count = fieldCounter(fragmentsOf(document))(operation.selectionSet)
  if (count > MAX_FIELDS) {
    return new TooLargeError(
      `The subscription asks for ${count} fields of each event; at most ${MAX_FIELDS} are allowed. Ask for fewer.`,
    )
  }
  const field = fieldReadFromDatabase(schema, document)
  if (field === undefined) return undefined
  const reason =
    'cannot be part of a subscription, since it is read from the database; ask for it in a query when an event has come'
  return new BadUserInputError([{ path: field, reason }])
}

/** An event carries all that is known at that time; what takes arguments has to be looked up. */
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

/** Counts the fields of a selection with those of the fragments that it spreads; each fragment is counted once. */
function fieldCounter(
  fragments: ReadonlyMap<string, FragmentDefinitionNode>,
): (selectionSet: SelectionSetNode) => number {
  const counts = new Map<string, number>()
  const ofFragment = (name: string): number => {
    const fragment = fragments.get(name)
    const count = counts.get(name) ?? (fragment ? of(fragment.selectionSet) : 0)
    counts.set(name, count)
    return count
  }
  const of = ({ selections }: SelectionSetNode): number =>
    selections.reduce((sum, selection) => {
      if (selection.kind === Kind.FRAGMENT_SPREAD) return sum + ofFragment(selection.name.value)
      const below = selection.selectionSet ? of(selection.selectionSet) : 0
      return sum + below + (selection.kind === Kind.FIELD ? 1 : 0)
    }, 0)
  return of
}

function fragmentsOf({ definitions }: DocumentNode): Map<string, FragmentDefinitionNode> {
  const fragments = definitions.filter((definition) => definition.kind === Kind.FRAGMENT_DEFINITION)
  return new Map(fragments.map((fragment) => [fragment.name.value, fragment]))
}

/** In the order in which they are met. */
function shortNameFor(names: Map<string, string>, originalName: string, prefix: string): string {
  const name = names.get(originalName) ?? `${prefix}${names.size}`
  names.set(originalName, name)
  return name
}

function withName<Node extends { name: { kind: Kind.NAME; value: string } }>(node: Node, name: string): Node {
  return { ...node, name: { kind: Kind.NAME, value: name } }
}
