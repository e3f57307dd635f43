import { CombinedGraphQLErrors, ServerError } from '@apollo/client'

/** Why a request was not done, as far as the page treats it differently. */
export interface RequestFailure {
  kind: 'input' | 'conflict' | 'refused' | 'network'
  message: string
  /** Of `input`: every fault, with the path of its field. */
  fields: readonly FieldError[]
  /** Of `conflict`: the deployment that stands in the way. */
  deploymentId: string | null
}

/** A way to sign in: what is on its button, and where that leads. */
export interface SignInProvider {
  name: string
  url: string
}

export interface FieldError {
  /** As in `contents.files[3].path`. */
  path: string
  reason: string
}

export function toRequestFailure(error: unknown): RequestFailure {
  const answer = answerIn(error)
  if (!answer) return { ...nothingKnown, kind: 'network', message: networkMessage(error) }
  const { code, fields, deploymentId } = answer.extensions ?? {}
  return {
    kind: code === 'BAD_USER_INPUT' ? 'input' : code === 'CONFLICT' ? 'conflict' : 'refused',
    message: answer.message,
    fields: Array.isArray(fields) ? fields.filter(isFieldError).map(withoutInput) : [],
    deploymentId: typeof deploymentId === 'string' ? deploymentId : null,
  }
}

/** How to sign in, when the server has said that it does not know who asks. */
export function signInProviders(error: unknown): readonly SignInProvider[] | null {
  const { code, signIn } = answerIn(error)?.extensions ?? {}
  if (code !== 'UNAUTHENTICATED') return null
  return Array.isArray(signIn) ? signIn.filter(isSignInProvider) : []
}

const nothingKnown = { fields: [], deploymentId: null }

interface Answer {
  message: string
  extensions?: Record<string, unknown>
}

function answerIn(error: unknown): Answer | undefined {
  return CombinedGraphQLErrors.is(error) ? error.errors[0] : errorInBody(error)
}

/** A refusal before GraphQL had its turn (a body too large, say) may come with GraphQL's shape and a status of its own. */
function errorInBody(error: unknown): Answer | undefined {
  if (!ServerError.is(error)) return undefined
  try {
    return JSON.parse(error.bodyText).errors?.[0]
  } catch {
    return error.statusCode === 413
      ? { message: 'This is more than the server takes in one request.' }
      : undefined
  }
}

function networkMessage(error: unknown): string {
  if (ServerError.is(error)) return `The server answered with status ${error.statusCode}. Try again.`
  return 'The server could not be reached. Nothing is lost; try again.'
}

function isFieldError(value: unknown): value is FieldError {
  const fault = value as Partial<FieldError> | null
  return typeof fault?.path === 'string' && typeof fault.reason === 'string'
}

/** Only paths of ours: a link is made of it. */
function isSignInProvider(value: unknown): value is SignInProvider {
  const way = value as Partial<SignInProvider> | null
  return typeof way?.name === 'string' && typeof way.url === 'string' && /^\/(?!\/)/.test(way.url)
}

function withoutInput({ path, reason }: FieldError): FieldError {
  return { path: path.replace(/^input\./, ''), reason }
}
