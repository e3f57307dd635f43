import { type ExecutionResult, getOperationAST, type OperationDefinitionNode, parse } from 'graphql'
import { type Client, createClient, type SubscribePayload } from 'graphql-ws'

interface Request {
  query: string
  operationName?: string | null | undefined
  // GraphiQL passes on what is in its editor.
  variables?: unknown
}

/**
 * Queries and mutations go over HTTP, subscriptions over the socket, which is opened for the first of them. A token in
 * the editor's headers goes along with both; without one, the session of the browser does.
 */
export function createFetcher(url: URL) {
  const socketUrl = new URL(url)
  socketUrl.protocol = url.protocol.replace('http', 'ws')
  let socket: Client | undefined
  let tokenOfSocket: string | undefined

  /** A socket belongs to who has opened it: another token needs another. */
  function socketFor(token: string | undefined): Client {
    if (socket && token === tokenOfSocket) return socket
    socket?.dispose()
    tokenOfSocket = token
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
    // GraphiQL's types want errors of a class; what it shows is their JSON.
    const results = socketFor(tokenIn(headers)).iterate(payload) as AsyncIterable<ExecutionResult>
    return explained(results)
  }
}

function tokenIn(headers: Record<string, string>): string | undefined {
  return Object.entries(headers).find(([name]) => name.toLowerCase() === 'authorization')?.[1]
}

/** What closes the socket for good comes with a reason, of which GraphiQL would show nothing. */
async function* explained(results: AsyncIterable<ExecutionResult>): AsyncGenerator<ExecutionResult> {
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

/** Right after another tab was opened, GraphiQL still names the operation of the one before: it is not believed alone. */
function operationOf({ query, operationName }: Request): OperationDefinitionNode | null | undefined {
  try {
    const document = parse(query)
    return getOperationAST(document, operationName) ?? getOperationAST(document)
  } catch {
    // The server says what is wrong with a document that cannot be parsed.
    return undefined
  }
}
