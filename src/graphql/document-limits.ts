import { maxDepthRule } from '@escape.tech/graphql-armor-max-depth'
import { type DocumentNode, GraphQLError, type GraphQLSchema, parse, specifiedRules, validate } from 'graphql'
import { TooLargeError } from '../errors.ts'

/** Contents belong in variables, which have their own limits. */
const MAX_DOCUMENT_LENGTH = 100_000
export const MAX_DOCUMENT_TOKENS = 10_000
/** Nesting of any brackets. The parser of graphql-js recurses for each; its introspection query has 14. */
const MAX_NESTED_BRACKETS = 100
const MAX_DEPTH = 10
/** Each error may repeat part of the document. */
export const MAX_VALIDATION_ERRORS = 20

/** Parses and validates a document, within the limits. Returns the document, or its errors. */
export function parseAndValidate(schema: GraphQLSchema, query: string): DocumentNode | GraphQLError[] {
  const tooLarge = checkDocumentText(query)
  if (tooLarge) return [tooLarge]
  let document: DocumentNode
  try {
    document = parse(query, { maxTokens: MAX_DOCUMENT_TOKENS })
  } catch (error) {
    if (error instanceof GraphQLError) return [withCode(error, 'GRAPHQL_PARSE_FAILED')]
    throw error
  }
  const errors = validationErrors(schema, document)
  return errors.length > 0 ? errors.map((error) => withCode(error, 'GRAPHQL_VALIDATION_FAILED')) : document
}

function validationErrors(schema: GraphQLSchema, document: DocumentNode): readonly GraphQLError[] {
  try {
    return validate(schema, document, specifiedRules, { maxErrors: MAX_VALIDATION_ERRORS })
  } catch (error) {
    // One rule throws: a variable decides whether a subscription selects its only field.
    if (error instanceof GraphQLError) return [error]
    throw error
  }
}

/** Checks the size of a document before it is parsed. */
export function checkDocumentText(query: string): TooLargeError | undefined {
  if (query.length > MAX_DOCUMENT_LENGTH) {
    return new TooLargeError(
      `The document has ${query.length} characters; at most ${MAX_DOCUMENT_LENGTH} are allowed. Send contents as variables.`,
    )
  }
  if (bracketDepth(query) > MAX_NESTED_BRACKETS) {
    return new TooLargeError(
      `The document nests brackets more than ${MAX_NESTED_BRACKETS} levels deep. Send values as variables.`,
    )
  }
  return undefined
}

/** The nesting of brackets. Those in strings and comments do not count (GraphQL specification, 2.1). */
function bracketDepth(query: string): number {
  let depth = 0
  let maxDepth = 0
  for (const [token] of query.matchAll(BRACKET_TOKENS)) {
    if ('([{'.includes(token)) maxDepth = Math.max(maxDepth, ++depth)
    else if (')]}'.includes(token)) depth--
  }
  return maxDepth
}

const BRACKET_TOKENS = /"""(?:\\"""|[\s\S])*?(?:"""|$)|"(?:\\.|[^"\\\n\r])*"?|#[^\n\r]*|[()[\]{}]/g

/** Checks the depth of a valid document. */
export function checkDepth(schema: GraphQLSchema, document: DocumentNode): TooLargeError | undefined {
  if (!isTooDeep(schema, document)) return undefined
  return new TooLargeError(
    `The operation is nested too deeply; at most ${MAX_DEPTH} levels are allowed. Split it into several requests.`,
  )
}

function isTooDeep(schema: GraphQLSchema, document: DocumentNode): boolean {
  try {
    return validate(schema, document, [maxDepthRule({ n: MAX_DEPTH })]).length > 0
  } catch (error) {
    // This rule throws instead of reporting.
    if (error instanceof GraphQLError) return true
    throw error
  }
}

function withCode(error: GraphQLError, code: string): GraphQLError {
  error.extensions.code ??= code
  return error
}
