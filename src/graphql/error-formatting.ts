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

/** Messages of graphql-js can repeat the whole document. */
const MAX_MESSAGE_LENGTH = 1_000
/** graphql-js lists every place in the document that an error concerns. */
const MAX_LOCATIONS = 20

/**
 * Formats an error for a client, over HTTP and over the socket. Internal details are logged instead. `code`
 * applies to errors of the document, which graphql-js leaves without one.
 */
export function toClientError(error: unknown, code?: unknown): GraphQLFormattedError {
  if (!(error instanceof GraphQLError)) return formatForClient(error)
  const { path } = error.toJSON()
  const locations = error.locations?.slice(0, MAX_LOCATIONS)
  const formatted = formatForClient(rootCause(error) ?? error)
  // For Apollo only: the status of the HTTP response.
  const { http: _, ...extensions } = formatted.extensions ?? {}
  return {
    ...formatted,
    ...(locations && { locations }),
    ...(path && { path }),
    extensions: { ...(code !== undefined && { code }), ...extensions },
  }
}

/** Formats the result of an operation for a client. */
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
    logger.warn('Database unavailable', { error })
    return new ShipcastError(
      'INTERNAL',
      'The database is unavailable. Try again soon; with an idempotencyKey, a retry cannot deploy twice.',
    ).toJSON()
  }
  if (error instanceof GraphQLError && TOO_MANY_TOKENS.test(error.message)) {
    return new TooLargeError(
      'The document is too large. Split it into several requests; send contents as variables.',
    ).toJSON()
  }
  if (error instanceof GraphQLError && error.message === TOO_LONG_TO_VALIDATE) {
    return new TooLargeError(
      'The document repeats the same fields or fragments too often. Split it into several requests, or use aliases.',
    ).toJSON()
  }
  // An error of the document.
  if (error instanceof GraphQLError) return formatGraphQLError(error)
  if (error instanceof DOMException && error.name === 'AbortError') {
    logger.debug('Client closed the request')
    return new GraphQLError('The client closed the request.', {
      extensions: { code: 'BAD_REQUEST' },
    }).toJSON()
  }
  const id = randomUUID()
  logger.error('Request failed', { id, error })
  return internalError(id).toJSON()
}

/** graphql-js gives this error no code. */
const TOO_MANY_TOKENS = /^Syntax Error: Document contains more tha[nt] \d+ tokens/

/** From OverlappingFieldsCanBeMerged, which compares every field with every other. */
const TOO_LONG_TO_VALIDATE = 'Validation aborted.'

/** Errors without a code that graphql-js finds during execution are about arguments. */
function formatGraphQLError(error: GraphQLError): GraphQLFormattedError {
  const { message, extensions, path } = error.toJSON()
  const isLong = message.length > MAX_MESSAGE_LENGTH
  const text = isLong ? `${message.slice(0, MAX_MESSAGE_LENGTH).toWellFormed()}…` : message
  return { message: text, ...(path && { path }), extensions: { code: 'BAD_USER_INPUT', ...extensions } }
}

/** The error that a resolver threw; undefined if graphql-js itself found the error. */
function rootCause({ originalError }: GraphQLError): unknown {
  if (originalError instanceof ShipcastError || !(originalError instanceof GraphQLError)) return originalError
  return rootCause(originalError)
}

/**
 * Passes errors of resolvers and guards on to GraphQL. Otherwise Nest logs each one with its stack: client
 * errors too, and a second time those that `toClientError` logs.
 */
@Catch()
export class PassThroughErrorsFilter implements ExceptionFilter {
  catch(error: unknown): unknown {
    return error
  }
}
