import { type ExecutionResult, getOperationAST, type OperationDefinitionNode, parse } from 'graphql'
import { createClient, type SubscribePayload } from 'graphql-ws'

interface Request {
  query: string
  operationName?: string | null | undefined
  // GraphiQL passes on what is in its editor.
  variables?: unknown
}

/** Queries and mutations go over HTTP, subscriptions over the socket, which is opened for the first of them. */
export function createFetcher(url: URL) {
  const socketUrl = new URL(url)
  socketUrl.protocol = url.protocol.replace('http', 'ws')
  const socket = createClient({
    url: socketUrl.href,
    retryAttempts: Number.POSITIVE_INFINITY,
    shouldRetry: () => true,
    keepAlive: 10_000,
  })

  return (request: Request, { headers = {} }: { headers?: Record<string, string> } = {}) => {
    const operation = operationOf(request)
    const payload = {
      query: request.query,
      variables: request.variables as SubscribePayload['variables'],
      operationName: operation?.name?.value,
    }
    if (operation?.operation !== 'subscription') return post(url, payload, headers)
    // GraphiQL's types want errors of a class; what it shows is their JSON.
    return socket.iterate(payload) as AsyncIterable<ExecutionResult>
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
