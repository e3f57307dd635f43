import { createServer } from 'node:http'
import { routes } from './routes.js'

/** An HTTP server with the routes, and a way to stop it that loses no request. */
export function createService() {
  let isStopping = false

  const server = createServer(async (request, response) => {
    // While stopping, a connection is not kept for the next request.
    if (isStopping) response.setHeader('connection', 'close')
    try {
      const { status, body } = await answer(request, { isStopping })
      send(response, status, body)
    } catch (error) {
      console.error(error)
      send(response, 500, { error: 'Something went wrong here.' })
    }
  })

  /** Takes no new connection, waits for the requests under way, and cuts off what takes longer than `graceMs`. */
  async function stop(graceMs) {
    isStopping = true
    const closed = new Promise((resolve) => server.close(resolve))
    const timer = setTimeout(() => server.closeAllConnections(), graceMs)
    await closed
    clearTimeout(timer)
  }

  return { server, stop }
}

async function answer(request, context) {
  const url = parseUrl(request.url)
  const route = url && routes[url.pathname]
  if (!route) return { status: 404, body: { error: 'There is nothing at this address.' } }
  const handler = route[request.method === 'HEAD' ? 'GET' : request.method]
  if (!handler) return { status: 405, body: { error: `${request.method} is not possible here.` } }
  return handler(url, context)
}

function parseUrl(target) {
  return URL.canParse(target, 'http://localhost') ? new URL(target, 'http://localhost') : null
}

function send(response, status, body) {
  const json = JSON.stringify(body)
  response.writeHead(status, {
    'content-type': 'application/json; charset=utf-8',
    'content-length': Buffer.byteLength(json),
  })
  response.end(json)
}
