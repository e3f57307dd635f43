import { maxDepthRule } from '@escape.tech/graphql-armor-max-depth'
import { type DocumentNode, GraphQLError, type GraphQLSchema, parse, specifiedRules, validate } from 'graphql'
import { type ComplexityEstimator, getComplexity } from 'graphql-query-complexity'
import { TooLarge } from '../errors.ts'

/** Contents belong into variables, which have limits of their own. */
const MOST_DOCUMENT_LENGTH = 100_000
export const MOST_DOCUMENT_TOKENS = 10_000
const MOST_DEPTH = 10
/** About one for each field of an answer. */
const MOST_COST = 20_000
/** What a list without `first` is taken to hold. */
const ASSUMED_LIST_LENGTH = 10

export interface Operation {
  query: string
  operationName?: string | null | undefined
  variables?: Record<string, unknown> | null | undefined
}

/** Parses and validates a document, within the limits. Returns the document, or all that is wrong with it. */
export function readDocument(schema: GraphQLSchema, { query }: Operation): DocumentNode | GraphQLError[] {
  const tooLong = refuseLong(query)
  if (tooLong) return [tooLong]
  let document: DocumentNode
  try {
    document = parse(query, { maxTokens: MOST_DOCUMENT_TOKENS })
  } catch (error) {
    if (error instanceof GraphQLError) return [withCode(error, 'GRAPHQL_PARSE_FAILED')]
    throw error
  }
  const faults = faultsOf(schema, document)
  return faults.length > 0 ? faults.map((fault) => withCode(fault, 'GRAPHQL_VALIDATION_FAILED')) : document
}

function faultsOf(schema: GraphQLSchema, document: DocumentNode): readonly GraphQLError[] {
  try {
    return validate(schema, document, specifiedRules)
  } catch (error) {
    // A rule of graphql throws what it finds: a variable that decides whether a subscription has its only field.
    if (error instanceof GraphQLError) return [error]
    throw error
  }
}

export function refuseLong(query: string): GraphQLError | undefined {
  if (query.length <= MOST_DOCUMENT_LENGTH) return undefined
  return new TooLarge(
    `The document has ${query.length} characters; at most ${MOST_DOCUMENT_LENGTH} are allowed. Send contents as variables.`,
  )
}

/** What is too deep or too dear about a valid document. */
export function refuseDear(
  schema: GraphQLSchema,
  document: DocumentNode,
  { operationName, variables }: Pick<Operation, 'operationName' | 'variables'>,
): GraphQLError | undefined {
  if (isTooDeep(schema, document)) {
    return new TooLarge(
      `The operation is nested too deeply; at most ${MOST_DEPTH} levels are allowed. Ask in parts.`,
    )
  }
  let cost: number
  try {
    cost = getComplexity({
      schema,
      query: document,
      operationName: operationName ?? undefined,
      variables: variables ?? {},
      estimators: [estimate],
    })
  } catch (error) {
    // Variables of a wrong kind: the execution tells about them better.
    if (error instanceof GraphQLError) return undefined
    throw error
  }
  if (cost <= MOST_COST) return undefined
  return new TooLarge(
    `The operation may cost ${cost}, about one for each field of its answer; at most ${MOST_COST} are allowed. Ask for fewer things at once, with "first".`,
  )
}

function isTooDeep(schema: GraphQLSchema, document: DocumentNode): boolean {
  try {
    return validate(schema, document, [maxDepthRule({ n: MOST_DEPTH })]).length > 0
  } catch (error) {
    // This rule throws what it has found.
    if (error instanceof GraphQLError) return true
    throw error
  }
}

const estimate: ComplexityEstimator = ({ args, field, childComplexity }) => {
  // Introspection is as large as the schema, which is ours. Tools ask for all of it.
  if (field.name.startsWith('__')) return 1
  const isList = String(field.type).includes('[')
  const length = typeof args.first === 'number' ? Math.max(args.first, 0) : isList ? ASSUMED_LIST_LENGTH : 1
  return 1 + (isConnectionPart(field.name) ? 1 : length) * childComplexity
}

/** The list inside of a connection is as long as the connection's `first` says, which has been counted. */
function isConnectionPart(fieldName: string): boolean {
  return fieldName === 'edges'
}

function withCode(error: GraphQLError, code: string): GraphQLError {
  error.extensions.code ??= code
  return error
}
