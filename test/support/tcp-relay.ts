import { once } from 'node:events'
import { createConnection, createServer, type Server, type Socket } from 'node:net'

/** Forwards one TCP address (127.0.0.1) to a Unix socket, which can change. */
export class TcpRelay {
  /** The socket for new connections. */
  target = ''
  readonly port: number
  private readonly server: Server
  private readonly sockets = new Set<Socket>()

  private constructor(port: number, server: Server) {
    this.port = port
    this.server = server
  }

  static async start(): Promise<TcpRelay> {
    const server = createServer().listen(0, '127.0.0.1')
    await once(server, 'listening')
    const address = server.address()
    if (address === null || typeof address === 'string') throw new Error('The relay has no port.')
    const relay = new TcpRelay(address.port, server)
    server.on('connection', (socket) => relay.forward(socket))
    return relay
  }

  close(): void {
    for (const socket of this.sockets) socket.destroy()
    this.server.close()
  }

  private forward(socket: Socket): void {
    const onward = createConnection(this.target)
    for (const [from, to] of [
      [socket, onward],
      [onward, socket],
    ] as const) {
      this.sockets.add(from)
      from.setNoDelay(true)
      from.pipe(to)
      from.on('error', () => to.destroy())
      from.on('close', () => {
        this.sockets.delete(from)
        to.destroy()
      })
    }
  }
}
