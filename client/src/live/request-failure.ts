import { CombinedGraphQLErrors, ServerError } from '@apollo/client'

/** Why a request failed; `kind` distinguishes what the page handles differently. */
export interface RequestFailure {
  kind: 'input' | 'conflict' | 'refused' | 'network'
  message: string
  /** For `input`: all validation errors. */
  fields: readonly FieldError[]
  /** For `conflict`: the other deployment. */
  deploymentId: string | null
}

export interface FieldError {
  /** As in `contents.files[3].path`. */
  path: string
  /** Completes "<path> …", as in `must not be empty`. */
  reason: string
}

export interface SignInProvider {
  name: string
  /** A path on this server. */
  url: string
}

export function toRequestFailure(error: unknown): RequestFailure {
  const graphQLError = firstErrorOf(error)
  if (!graphQLError)
    return { kind: 'network', message: networkMessage(error), fields: [], deploymentId: null }
  const { code, fields, deploymentId } = graphQLError.extensions ?? {}
  return {
    kind: code === 'BAD_USER_INPUT' ? 'input' : code === 'CONFLICT' ? 'conflict' : 'refused',
    message: graphQLError.message,
    fields: Array.isArray(fields) ? fields.filter(isFieldError).map(withoutInputPrefix) : [],
    deploymentId: typeof deploymentId === 'string' ? deploymentId : null,
  }
}

/** The sign-in providers that an UNAUTHENTICATED error names; null for every other error. */
export function signInProviders(error: unknown): readonly SignInProvider[] | null {
  const { code, signIn } = firstErrorOf(error)?.extensions ?? {}
  if (code !== 'UNAUTHENTICATED') return null
  return Array.isArray(signIn) ? signIn.filter(isSignInProvider) : []
}

interface GraphQLErrorBody {
  message: string
  extensions?: Record<string, unknown>
}

function firstErrorOf(error: unknown): GraphQLErrorBody | undefined {
  return CombinedGraphQLErrors.is(error) ? error.errors[0] : errorInBody(error)
}

/**
 * Errors raised before GraphQL execution have an HTTP error status, but can have the shape of GraphQL errors.
 */
function errorInBody(error: unknown): GraphQLErrorBody | undefined {
  if (!ServerError.is(error)) return undefined
  try {
    return JSON.parse(error.bodyText).errors?.[0]
  } catch {
    return error.statusCode === 413
      ? { message: 'The request is larger than the server accepts. Select fewer or smaller files.' }
      : undefined
  }
}

function networkMessage(error: unknown): string {
  if (ServerError.is(error)) return `The server responded with status ${error.statusCode}. Try again.`
  return 'The server could not be reached. Nothing is lost; try again.'
}

function isFieldError(value: unknown): value is FieldError {
  const error = value as Partial<FieldError> | null
  return typeof error?.path === 'string' && typeof error.reason === 'string'
}

/** Accepts only paths on this server, because the page links to them. */
function isSignInProvider(value: unknown): value is SignInProvider {
  const provider = value as Partial<SignInProvider> | null
  return (
    typeof provider?.name === 'string' && typeof provider.url === 'string' && /^\/(?!\/)/.test(provider.url)
  )
}

function withoutInputPrefix({ path, reason }: FieldError): FieldError {
  return { path: path.replace(/^input\./, ''), reason }
}
