import { type ExecutionResult, getOperationAST, type OperationDefinitionNode, parse } from 'graphql'
import { type Client, createClient, type SubscribePayload } from 'graphql-ws'

interface Request {
  query: string
  operationName?: string | null | undefined
  /** Whatever the editor contains. */
  variables?: unknown
}

/**
 * Sends queries and mutations over HTTP, and subscriptions over a socket that the first of them opens. Both authenticate
 * with the token in the editor's headers, or else with the browser's session.
 */
export function createFetcher(url: URL) {
  const socketUrl = new URL(url)
  socketUrl.protocol = url.protocol.replace('http', 'ws')
  let socket: Client | undefined
  let socketToken: string | undefined

  /** A socket authenticates once, so that another token requires another socket. */
  function socketFor(token: string | undefined): Client {
    if (socket && token === socketToken) return socket
    socket?.dispose()
    socketToken = token
    socket = createClient({
      url: socketUrl.href,
      ...(token !== undefined && { connectionParams: { authorization: token } }),
      retryAttempts: Number.POSITIVE_INFINITY,
      shouldRetry: () => true,
      keepAlive: 10_000,
    })
    return socket
  }

  return (request: Request, { headers = {} }: { headers?: Record<string, string> } = {}) => {
    const operation = operationOf(request)
    const payload = {
      query: request.query,
      variables: request.variables as SubscribePayload['variables'],
      operationName: operation?.name?.value,
    }
    if (operation?.operation !== 'subscription') return post(url, payload, headers)
    // The cast is safe: GraphiQL only prints errors as JSON, although its types require a class.
    const results = socketFor(tokenIn(headers)).iterate(payload) as AsyncIterable<ExecutionResult>
    return withCloseReason(results)
  }
}

function tokenIn(headers: Record<string, string>): string | undefined {
  return Object.entries(headers).find(([name]) => name.toLowerCase() === 'authorization')?.[1]
}

/** GraphiQL does not show the reason of a close event. */
async function* withCloseReason(results: AsyncIterable<ExecutionResult>): AsyncGenerator<ExecutionResult> {
  try {
    yield* results
  } catch (error) {
    throw error instanceof CloseEvent ? new Error(`${error.reason} (${error.code})`) : error
  }
}

async function post(url: URL, payload: SubscribePayload, headers: Record<string, string>) {
  const response = await fetch(url, {
    method: 'POST',
    headers: { accept: 'application/graphql-response+json', 'content-type': 'application/json', ...headers },
    body: JSON.stringify(payload),
  })
  return response.json()
}

/** Right after a change of tabs, GraphiQL may still name the operation of the previous tab. */
function operationOf({ query, operationName }: Request): OperationDefinitionNode | null | undefined {
  try {
    const document = parse(query)
    return getOperationAST(document, operationName) ?? getOperationAST(document)
  } catch {
    // The server reports the syntax error.
    return undefined
  }
}
