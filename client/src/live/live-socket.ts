import { type Client, createClient } from 'graphql-ws'

/**
 * The page's only WebSocket, and the connection state that the page displays.
 *
 *   connecting ──ack──> (catching up) ──markCaughtUp()──> live
 *                             ^                            │ closed, or silent for too long
 *                             └────ack───── reconnecting <─┘
 *
 * It retries forever: the next attempt comes within 30 seconds, or at once when the network returns or the
 * page becomes visible. graphql-ws itself does not retry after a close that reports an unknown user; the next
 * subscriber reconnects.
 */
export interface LiveSocket {
  subscribe: Client['subscribe']
  connection(): Connection
  onConnectionChange(listener: () => void): () => void
  /** The server has closed the socket because the session ended or the user's rights changed. */
  onAccessChange(listener: () => void): () => void
  /** The displayed data is current. */
  markCaughtUp(): void
  /** The displayed data may be outdated, although the socket is open. */
  markBehind(): void
  /** Ends a wait between two attempts. */
  reconnectNow(): void
  /** Waits as between two attempts; `reconnectNow` ends the wait. */
  backOff(): Promise<void>
  /** Closes the socket permanently. */
  close(): void
}

export interface Connection {
  state: 'connecting' | 'live' | 'reconnecting'
  isOpen: boolean
  /** Sent with mutations: the server does not send a mutation's own event back to its connection. */
  connectionId: string | null
  /** Head of the server's log when it acknowledged this connection. */
  headCursor: string | null
  /** Time of the last message from the server, by this machine's clock. */
  lastMessageAtMs: number | null
}

const PING_INTERVAL_MS = 10_000
const PONG_TIMEOUT_MS = 5_000
const CONNECT_TIMEOUT_MS = 10_000
const STABLE_AFTER_MS = 10_000
const MIN_BACKOFF_MS = 300
const MAX_BACKOFF_SPAN_MS = 30_000
/** PROTOCOL.md: the session has ended; the rights have changed. */
const ACCESS_CHANGE_CODES = [4401, 4403]

export function createLiveSocket(url: string): LiveSocket {
  let connection: Connection = {
    state: 'connecting',
    isOpen: false,
    connectionId: null,
    headCursor: null,
    lastMessageAtMs: null,
  }
  let lastMessageAtMs: number | null = null
  let connectedAtMs = 0
  let attempts = 0
  let socket: WebSocket | null = null
  const connectionListeners = new Set<() => void>()
  const accessListeners = new Set<() => void>()
  const watchdog = new Watchdog(() => client.terminate())
  const pendingWaits = new Set<() => void>()

  const client: Client = createClient({
    url,
    lazy: false,
    // The page's permanent subscription reports the same errors.
    onNonLazyError: () => {},
    retryAttempts: Number.POSITIVE_INFINITY,
    shouldRetry: () => true,
    retryWait: backOff,
    keepAlive: PING_INTERVAL_MS,
    on: {
      connecting: () => watchdog.start(CONNECT_TIMEOUT_MS),
      connected: (opened, payload) => {
        socket = opened as WebSocket
        connectedAtMs = Date.now()
        onMessage()
        update({
          isOpen: true,
          connectionId: stringIn(payload, 'connectionId'),
          headCursor: stringIn(payload, 'cursor'),
        })
      },
      ping: (isReceived) => {
        if (!isReceived) watchdog.start(PONG_TIMEOUT_MS)
      },
      message: onMessage,
      closed: (event) => {
        onLost()
        if (ACCESS_CHANGE_CODES.includes((event as CloseEvent).code))
          for (const listener of accessListeners) listener()
      },
      error: onLost,
    },
  })

  function onMessage() {
    lastMessageAtMs = Date.now()
    watchdog.stop()
  }

  function onLost() {
    watchdog.stop()
    // Only a lasting connection resets the backoff: a server that acknowledges and then closes must not be
    // hammered.
    if (socket && Date.now() - connectedAtMs > STABLE_AFTER_MS) attempts = 0
    socket = null
    update({
      state: lastMessageAtMs === null ? 'connecting' : 'reconnecting',
      isOpen: false,
      connectionId: null,
    })
  }

  function backOff(): Promise<void> {
    const delayMs = backoffMs(attempts++)
    return new Promise((resolve) => {
      const end = () => {
        clearTimeout(timer)
        pendingWaits.delete(end)
        resolve()
      }
      const timer = setTimeout(end, delayMs)
      pendingWaits.add(end)
    })
  }

  function reconnectNow() {
    for (const end of pendingWaits) end()
  }

  // After a network change or a sleep, a socket may appear open although its connection is gone.
  function probe() {
    reconnectNow()
    if (socket?.readyState !== WebSocket.OPEN) return
    socket.send('{"type":"ping"}')
    watchdog.start(PONG_TIMEOUT_MS)
  }

  window.addEventListener('online', probe)
  window.addEventListener('offline', probe)
  document.addEventListener('visibilitychange', () => {
    if (document.visibilityState === 'visible') probe()
  })

  function update(change: Partial<Connection>) {
    connection = { ...connection, ...change, lastMessageAtMs }
    for (const listener of connectionListeners) listener()
  }

  return {
    subscribe: client.subscribe,
    connection: () => connection,
    onConnectionChange(listener) {
      connectionListeners.add(listener)
      return () => connectionListeners.delete(listener)
    },
    onAccessChange(listener) {
      accessListeners.add(listener)
      return () => accessListeners.delete(listener)
    },
    markCaughtUp() {
      if (connection.isOpen && connection.state !== 'live') update({ state: 'live' })
    },
    markBehind() {
      if (connection.state === 'live') update({ state: 'reconnecting' })
    },
    reconnectNow,
    backOff,
    // Rejects when no connection is open.
    close: () => void Promise.resolve(client.dispose()).catch(() => {}),
  }
}

/** 0.3 to 0.5 s at first, then random within a span that doubles up to 30 s, to spread reconnecting pages. */
export function backoffMs(attempt: number, random = Math.random): number {
  const spanMs = Math.min(MAX_BACKOFF_SPAN_MS, 200 * 2 ** attempt)
  return MIN_BACKOFF_MS + random() * spanMs
}

/** Calls back unless it is stopped in time. */
class Watchdog {
  private timer: ReturnType<typeof setTimeout> | undefined

  constructor(private readonly onTimeout: () => void) {}

  start(timeoutMs: number) {
    clearTimeout(this.timer)
    this.timer = setTimeout(this.onTimeout, timeoutMs)
  }

  stop() {
    clearTimeout(this.timer)
  }
}

function stringIn(payload: Record<string, unknown> | undefined, key: string): string | null {
  const value = payload?.[key]
  return typeof value === 'string' ? value : null
}
