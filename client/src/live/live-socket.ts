import { type Client, createClient } from 'graphql-ws'

/**
 * The page's one WebSocket, and what a person is told of it.
 *
 *   connecting ──ack──> (catching up) ──caughtUp()──> live
 *                             ^                         │ closed, or silent for too long
 *                             └────ack──── reconnecting <┘
 *
 * It never gives up: whatever ends it, the next attempt comes within 30 seconds, or at once when the network returns
 * or the page is looked at again. After a close that says that nobody knows who we are, graphql-ws itself does not try
 * again; whoever subscribes anew makes it.
 */
export interface LiveSocket {
  subscribe: Client['subscribe']
  connection(): Connection
  onConnectionChange(listener: () => void): () => void
  /** Tells that the server has closed it because nobody knows any more who we are, or because of what we may do now. */
  onAccessChange(listener: (change: 'identity' | 'rights') => void): () => void
  /** What is shown is now what the server knows. */
  caughtUp(): void
  /** What is shown may be older than what the server knows, although the connection is open. */
  fellBehind(): void
  /** Ends a wait between two attempts. */
  reconnectNow(): void
  /** Waits as between two attempts; `reconnectNow` ends it. */
  backOff(): Promise<void>
  /** For good. */
  close(): void
}

export interface Connection {
  state: 'connecting' | 'live' | 'reconnecting'
  isOpen: boolean
  /** Sent along with mutations: the server does not echo to a connection what its own result already told it. */
  connectionId: string | null
  /** Head of the server's log when this connection was acknowledged. */
  headCursor: string | null
  /** When the server was last heard, by the clock of this machine. */
  lastHeardAtMs: number | null
}

const pingIntervalMs = 10_000
const pongTimeoutMs = 5_000
const connectTimeoutMs = 10_000
const stableAfterMs = 10_000
const longestBackoffMs = 30_000
/** PROTOCOL.md: how the server closes it when something about our access has changed. */
const accessChanges: Record<number, 'identity' | 'rights'> = { 4401: 'identity', 4403: 'rights' }

export function createLiveSocket(url: string): LiveSocket {
  let connection: Connection = {
    state: 'connecting',
    isOpen: false,
    connectionId: null,
    headCursor: null,
    lastHeardAtMs: null,
  }
  let lastHeardAtMs: number | null = null
  let connectedAtMs = 0
  let attempts = 0
  let socket: WebSocket | null = null
  const listeners = new Set<() => void>()
  const accessListeners = new Set<(change: 'identity' | 'rights') => void>()
  const watchdog = new Watchdog(() => client.terminate())
  const waits = new Set<() => void>()

  const client: Client = createClient({
    url,
    lazy: false,
    // The subscription that this page always holds reports the same errors.
    onNonLazyError: () => {},
    retryAttempts: Number.POSITIVE_INFINITY,
    shouldRetry: () => true,
    retryWait: backOff,
    keepAlive: pingIntervalMs,
    on: {
      connecting: () => watchdog.expectWithin(connectTimeoutMs),
      connected: (opened, payload) => {
        socket = opened as WebSocket
        connectedAtMs = Date.now()
        heard()
        update({
          isOpen: true,
          connectionId: stringIn(payload, 'connectionId'),
          headCursor: stringIn(payload, 'cursor'),
        })
      },
      ping: (received) => {
        if (!received) watchdog.expectWithin(pongTimeoutMs)
      },
      message: heard,
      closed: (event) => {
        lost()
        const change = accessChanges[(event as CloseEvent).code]
        if (change) for (const listener of accessListeners) listener(change)
      },
      error: lost,
    },
  })

  function heard() {
    lastHeardAtMs = Date.now()
    watchdog.rest()
  }

  function lost() {
    watchdog.rest()
    // A server that acknowledges and closes again and again is not hammered: only a lasting connection counts.
    if (socket && Date.now() - connectedAtMs > stableAfterMs) attempts = 0
    socket = null
    update({
      state: lastHeardAtMs === null ? 'connecting' : 'reconnecting',
      isOpen: false,
      connectionId: null,
    })
  }

  function backOff(): Promise<void> {
    const delayMs = backoffMs(attempts++)
    return new Promise((resolve) => {
      const end = () => {
        clearTimeout(timer)
        waits.delete(end)
        resolve()
      }
      const timer = setTimeout(end, delayMs)
      waits.add(end)
    })
  }

  function reconnectNow() {
    for (const end of waits) end()
  }

  // A network that came back, or a machine that slept, leaves sockets that look open and are not.
  function probe() {
    reconnectNow()
    if (socket?.readyState !== WebSocket.OPEN) return
    socket.send('{"type":"ping"}')
    watchdog.expectWithin(pongTimeoutMs)
  }

  window.addEventListener('online', probe)
  window.addEventListener('offline', probe)
  document.addEventListener('visibilitychange', () => {
    if (document.visibilityState === 'visible') probe()
  })

  function update(change: Partial<Connection>) {
    connection = { ...connection, ...change, lastHeardAtMs }
    for (const listener of listeners) listener()
  }

  return {
    subscribe: client.subscribe,
    connection: () => connection,
    onConnectionChange(listener) {
      listeners.add(listener)
      return () => listeners.delete(listener)
    },
    onAccessChange(listener) {
      accessListeners.add(listener)
      return () => accessListeners.delete(listener)
    },
    caughtUp() {
      if (connection.isOpen && connection.state !== 'live') update({ state: 'live' })
    },
    fellBehind() {
      if (connection.state === 'live') update({ state: 'reconnecting' })
    },
    reconnectNow,
    backOff,
    // Rejects when there is no connection to be closed.
    close: () => void Promise.resolve(client.dispose()).catch(() => {}),
  }
}

/** 0.3 to 0.5 s first, then a random part of a span that doubles up to 30 s, so that a crowd does not return at once. */
export function backoffMs(attempt: number, random = Math.random): number {
  const spanMs = Math.min(longestBackoffMs, 200 * 2 ** attempt)
  return 300 + random() * spanMs
}

/** Calls back when what was expected did not come in time. */
class Watchdog {
  #timer: ReturnType<typeof setTimeout> | undefined

  constructor(private readonly onSilence: () => void) {}

  expectWithin(ms: number) {
    clearTimeout(this.#timer)
    this.#timer = setTimeout(this.onSilence, ms)
  }

  rest() {
    clearTimeout(this.#timer)
  }
}

function stringIn(payload: Record<string, unknown> | undefined, key: string): string | null {
  const value = payload?.[key]
  return typeof value === 'string' ? value : null
}
