import {
  type DocumentNode,
  GraphQLError,
  type GraphQLField,
  type GraphQLSchema,
  isEnumType,
  isInputObjectType,
  isInterfaceType,
  isObjectType,
} from 'graphql'
import { type ComplexityEstimator, getComplexity } from 'graphql-query-complexity'
import { TooLargeError } from '../errors.ts'

const MAX_COST = 20_000
/** Fields in the document, those of a fragment once for each place that spreads it. */
const MAX_FIELDS = 10_000
/** The assumed length of a list without `first`. */
const ASSUMED_LIST_LENGTH = 10

/**
 * The estimated cost, about one for each field of the response. An operation that cannot be estimated is
 * refused.
 * @throws TooLargeError
 */
export function checkCost(
  schema: GraphQLSchema,
  document: DocumentNode,
  variables: Readonly<Record<string, unknown>>,
): number {
  const cost = costOf(schema, document, variables)
  if (cost <= MAX_COST) return cost
  throw new TooLargeError(
    `Estimated query cost is ${cost}; the limit is ${MAX_COST}. Request fewer items with "first".`,
  )
}

function costOf(
  schema: GraphQLSchema,
  document: DocumentNode,
  variables: Readonly<Record<string, unknown>>,
): number {
  try {
    const cost = getComplexity({
      schema,
      query: document,
      variables,
      estimators: [estimatorOf(schema)],
      maxQueryNodes: MAX_FIELDS,
    })
    return Math.ceil(cost)
  } catch (error) {
    if (!(error instanceof GraphQLError)) throw error
    // A variable is null where the argument must not be.
    if (error.nodes) {
      throw new GraphQLError(error.message, { nodes: error.nodes, extensions: { code: 'BAD_USER_INPUT' } })
    }
    throw new TooLargeError(
      `The operation has ${MAX_FIELDS} fields or more, counted once for each place that spreads their fragment. Split it into several requests.`,
    )
  }
}

const estimators = new WeakMap<GraphQLSchema, ComplexityEstimator>()

function estimatorOf(schema: GraphQLSchema): ComplexityEstimator {
  let estimator = estimators.get(schema)
  if (!estimator) {
    const introspection = introspectionLengths(schema)
    estimator = ({ type, field, args, childComplexity }) => {
      const length = introspection.get(`${type.name}.${field.name}`) ?? listLengthOf(field, args.first)
      return 1 + length * childComplexity
    }
    estimators.set(schema, estimator)
  }
  return estimator
}

/** The length of a field's list. As in resolvers, `first: null` means the default. */
function listLengthOf(field: GraphQLField<unknown, unknown>, first: unknown): number {
  // The length of a connection's edges is its `first`, which is already counted.
  if (field.name === 'edges') return 1
  const argument = field.args.find(({ name }) => name === 'first')
  if (argument) return Math.max(0, Number(first ?? argument.defaultValue ?? ASSUMED_LIST_LENGTH))
  return String(field.type).includes('[') ? ASSUMED_LIST_LENGTH : 1
}

/**
 * Average lengths of introspection's lists in this schema. A full introspection query is within the limit.
 */
function introspectionLengths(schema: GraphQLSchema): ReadonlyMap<string, number> {
  const types = Object.values(schema.getTypeMap())
  const directives = schema.getDirectives()
  const withFields = types.filter((type) => isObjectType(type) || isInterfaceType(type))
  const fields = withFields.flatMap((type) => Object.values(type.getFields()))
  const inputFields = types.filter(isInputObjectType).flatMap((type) => Object.values(type.getFields()))
  const enumValues = types.filter(isEnumType).flatMap((type) => type.getValues())
  const perType = (all: readonly unknown[]) => Math.ceil(all.length / types.length)
  return new Map([
    ['__Schema.types', types.length],
    ['__Schema.directives', directives.length],
    ['__Type.fields', perType(fields)],
    ['__Type.inputFields', perType(inputFields)],
    ['__Type.enumValues', perType(enumValues)],
    ['__Type.interfaces', 1],
    ['__Type.possibleTypes', 1],
    // Tools nest it nine times; most types have one or two levels.
    ['__Type.ofType', 0.5],
    ['__Field.args', 1],
    ['__Directive.args', 2],
    ['__Directive.locations', 5],
  ])
}
