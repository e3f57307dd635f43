import type { Server } from 'node:http'
import type { Socket } from 'node:net'
import { Logger } from '@nestjs/common'
import type { RequestHandler } from 'express'
import type { Config } from '../config/config.ts'

/** After `DRAIN_MS`, for responses in progress. */
const CLOSE_GRACE_MS = 5_000
/** After that, for the rest of the shutdown: closing the database's connections, or stopping its server. */
const EXIT_GRACE_MS = 15_000

/**
 * When a server closes, Node ends its idle connections, but keeps busy ones open for five seconds after their
 * response, which would delay the shutdown.
 */
export function closeIdleConnectionsAtShutdown(server: Server): RequestHandler {
  return (_request, response, next) => {
    response.once('close', () => {
      if (!server.listening) setImmediate(() => server.closeIdleConnections())
    })
    next()
  }
}

/**
 * Bounds the duration of a shutdown, whatever clients do. A closed server no longer checks its timeouts, so a
 * single client that sends or reads a byte now and then could delay the shutdown indefinitely.
 */
export function limitShutdownTime(
  server: Server,
  signals: readonly NodeJS.Signals[],
  { drainMs }: Pick<Config, 'drainMs'>,
): void {
  const logger = new Logger('Shutdown')
  // All of them, including upgraded ones and those that have not sent anything yet.
  const sockets = new Set<Socket>()
  server.on('connection', (socket: Socket) => {
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
  })
  const closeAll = () => {
    server.close()
    if (sockets.size > 0) logger.warn('Closing connections that are still in use', { count: sockets.size })
    for (const socket of sockets) socket.destroy()
  }
  const exit = () => {
    logger.error('Shutdown took too long; exiting')
    process.exit(1)
  }
  let isShuttingDown = false
  for (const signal of signals) {
    process.once(signal, () => {
      if (isShuttingDown) return
      isShuttingDown = true
      setTimeout(closeAll, drainMs + CLOSE_GRACE_MS).unref()
      setTimeout(exit, drainMs + CLOSE_GRACE_MS + EXIT_GRACE_MS).unref()
    })
  }
}
