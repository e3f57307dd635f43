import { randomUUID } from 'node:crypto'
import { Catch, type ExceptionFilter, Logger } from '@nestjs/common'
import {
  type ExecutionResult,
  type FormattedExecutionResult,
  GraphQLError,
  type GraphQLFormattedError,
} from 'graphql'
import { DatabaseUnavailableError } from '../database/errors.ts'
import { internalError, ShipcastError, TooLargeError } from '../errors.ts'

const logger = new Logger('GraphQL')

/** Of graphql's own messages. */
const MAX_MESSAGE_LENGTH = 1_000
/** Places in the document: graphql names all that a fault is about. */
const MAX_LOCATIONS = 20

/**
 * An error as a client may see it, the same over HTTP and over the socket. What is not for outside is logged instead.
 * `code` is for errors of the document, where GraphQL itself gives none.
 */
export function toClientError(error: unknown, code?: unknown): GraphQLFormattedError {
  if (!(error instanceof GraphQLError)) return formatForClient(error)
  const { path } = error.toJSON()
  const locations = error.locations?.slice(0, MAX_LOCATIONS)
  const formatted = formatForClient(rootCause(error) ?? error)
  // What Apollo notes for itself, about the HTTP answer.
  const { http: _, ...extensions } = formatted.extensions ?? {}
  return {
    ...formatted,
    ...(locations && { locations }),
    ...(path && { path }),
    extensions: { ...(code !== undefined && { code }), ...extensions },
  }
}

/** The result of an operation as a client may see it. */
export function toClientResult({ data, errors, extensions }: ExecutionResult): FormattedExecutionResult {
  return {
    ...(errors && { errors: errors.map((error) => toClientError(error)) }),
    ...(data !== undefined && { data }),
    ...(extensions && { extensions }),
  }
}

function formatForClient(error: unknown): GraphQLFormattedError {
  if (error instanceof ShipcastError) return error.toJSON()
  if (error instanceof DatabaseUnavailableError) {
    logger.warn('The database is away', { error })
    return new ShipcastError(
      'INTERNAL',
      'The database cannot be reached at the moment. Try again soon; with an idempotencyKey nothing happens twice.',
    ).toJSON()
  }
  if (error instanceof GraphQLError && TOO_MANY_TOKENS.test(error.message)) {
    return new TooLargeError(
      'The document has too many parts. Ask in parts; send contents as variables.',
    ).toJSON()
  }
  if (error instanceof GraphQLError && error.message === TOO_LONG_TO_VALIDATE) {
    return new TooLargeError(
      'The document has the same fields or fragments in it too often. Ask in parts, or under other names.',
    ).toJSON()
  }
  // The document: GraphQL's own words say what is wrong with it. They may repeat all of it.
  if (error instanceof GraphQLError) return formatGraphQLError(error)
  if (error instanceof DOMException && error.name === 'AbortError') {
    logger.debug('A client did not wait for its answer')
    return new GraphQLError('The request was given up.', { extensions: { code: 'BAD_REQUEST' } }).toJSON()
  }
  const id = randomUUID()
  logger.error('A request failed', { id, error })
  return internalError(id).toJSON()
}

/** As graphql-js puts it, which gives it no code. */
const TOO_MANY_TOKENS = /^Syntax Error: Document contains more tha[nt] \d+ tokens/

/** Of its rule that fields of one name must be alike, which compares each with each. */
const TOO_LONG_TO_VALIDATE = 'Validation aborted.'

/** What graphql finds while it executes, and gives no code, is an argument that cannot be used. */
function formatGraphQLError(error: GraphQLError): GraphQLFormattedError {
  const { message, extensions, path } = error.toJSON()
  const isLong = message.length > MAX_MESSAGE_LENGTH
  const shown = isLong ? `${message.slice(0, MAX_MESSAGE_LENGTH).toWellFormed()}…` : message
  return { message: shown, ...(path && { path }), extensions: { code: 'BAD_USER_INPUT', ...extensions } }
}

/** What a resolver threw; undefined when GraphQL itself has found the fault. */
function rootCause({ originalError }: GraphQLError): unknown {
  if (originalError instanceof ShipcastError || !(originalError instanceof GraphQLError)) return originalError
  return rootCause(originalError)
}

/**
 * Hands on to GraphQL what a resolver threw. Without it Nest logs each as our own failure, with its stack: what a
 * client did wrong, and once more what `forClient` logs with its id.
 */
@Catch()
export class PassThroughErrorsFilter implements ExceptionFilter {
  catch(error: unknown): unknown {
    return error
  }
}
