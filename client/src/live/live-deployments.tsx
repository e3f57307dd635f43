import { useApolloClient } from '@apollo/client/react'
import { type DocumentNode, Kind, print, visit } from 'graphql'
import { createContext, type ReactNode, useContext, useEffect, useState } from 'react'
import type { DeploymentStatusSubscription } from '../gql/graphql.ts'
import { graphql } from '../gql/index.ts'
import { deploymentCache } from './apollo-client.ts'
import { useLiveSocket } from './live-socket-context.ts'
import { recordStart } from './recent-starts.ts'
import { learnServerTime } from './server-clock.ts'

const DEPLOYMENT_STATUS = graphql(`
  subscription DeploymentStatus($after: String) {
    deploymentStatus(after: $after) {
      cursor
      ...EventState @unmask
      deployment {
        ...DeploymentState @unmask
      }
    }
  }
`)

/** After this time without a connection, the page queries anyway. */
const MAX_CONNECT_WAIT_MS = 2_000
/** After this time without events, the page counts as caught up. */
const QUIET_PERIOD_MS = 1_500

const CanQueryContext = createContext(false)

/** True once queries may be sent: from then on no event is missed (see LiveDeployments). */
export function useCanQuery(): boolean {
  return useContext(CanQueryContext)
}

/**
 * Writes the socket's events to the cache. The rest of the page reads only the cache.
 *
 * The order ensures that no event is missed between a query and the subscription: 1. the server acknowledges
 * the connection and names the head of its log; 2. only then does the page send queries (`useCanQuery`); 3.
 * the subscription requests everything after that head. The cache merges duplicates by sequence. After a lost
 * connection the subscription resumes after the last event seen. If the server no longer knows that cursor,
 * the page clears its cache and starts over from the head of the log.
 */
export function LiveDeployments({ children }: { children: ReactNode }) {
  const client = useApolloClient()
  const socket = useLiveSocket()
  const [canQuery, setCanQuery] = useState(false)

  useEffect(() => {
    const cache = deploymentCache(client)
    const query = print(withoutDirectives(cache.transformDocument(DEPLOYMENT_STATUS)))
    const unmounted = new AbortController()
    let lastCursor: string | null = null
    let wasOpen = false
    let hasQueried = false
    /** The cursor at which the page has caught up; null if only a quiet period indicates that. */
    let targetCursor: string | null = null
    let quietTimer: ReturnType<typeof setTimeout> | undefined

    const connectTimer = setTimeout(allowQueries, MAX_CONNECT_WAIT_MS)
    const stopListening = socket.onConnectionChange(onConnectionChange)
    onConnectionChange()
    void staySubscribed()

    function onConnectionChange() {
      const { isOpen, headCursor } = socket.connection()
      if (isOpen && !wasOpen) onOpen(headCursor)
      wasOpen = isOpen
    }

    function onOpen(headCursor: string | null) {
      const canResume = lastCursor !== null
      lastCursor ??= headCursor
      catchUpTo(headCursor)
      if (!canResume && hasQueried) void client.refetchQueries({ include: 'active' })
      allowQueries()
    }

    function allowQueries() {
      clearTimeout(connectTimer)
      hasQueried = true
      setCanQuery(true)
    }

    async function staySubscribed() {
      while (!unmounted.signal.aborted) {
        const code = await subscribe()
        if (unmounted.signal.aborted) return
        clearTimeout(quietTimer)
        socket.markBehind()
        if (code === 'CURSOR_UNKNOWN') await restart()
        await socket.backOff()
        catchUpTo(null)
      }
    }

    /** Resolves to an error code when the server ends the subscription. A lost connection does not end it. */
    function subscribe(): Promise<string | null> {
      return new Promise((resolve) => {
        const end = (code: string | null) => {
          unsubscribe()
          resolve(code)
        }
        const unsubscribe = socket.subscribe<DeploymentStatusSubscription>(
          {
            query,
            variables: {
              // A getter, because graphql-ws sends this same object again after a lost connection.
              get after() {
                return lastCursor
              },
            },
          },
          {
            next: ({ data, errors }) => {
              if (data) onEvent(data.deploymentStatus)
              if (errors) end(codeOf(errors))
            },
            error: (error) => end(codeOf(error)),
            complete: () => end(null),
          },
        )
        unmounted.signal.addEventListener('abort', () => end(null))
      })
    }

    function onEvent({ cursor, deployment, ...event }: DeploymentStatusSubscription['deploymentStatus']) {
      lastCursor = cursor
      learnServerTime(event.at)
      if (cache.recordEvent(event, deployment)) recordStart(deployment.id)
      if (targetCursor !== null || socket.connection().state !== 'live') catchUpTo(targetCursor)
    }

    /**
     * The page is live once it has reached the head of the log, or once no event has arrived for long enough.
     */
    function catchUpTo(cursor: string | null) {
      clearTimeout(quietTimer)
      if (cursor !== null && cursor === lastCursor) {
        targetCursor = null
        socket.markCaughtUp()
      } else {
        targetCursor = cursor
        quietTimer = setTimeout(() => socket.markCaughtUp(), QUIET_PERIOD_MS)
      }
    }

    async function restart() {
      lastCursor = socket.connection().headCursor
      cache.forgetRecent()
      // Failed queries show their own errors.
      await client.resetStore().catch(() => {})
    }

    return () => {
      unmounted.abort()
      clearTimeout(connectTimer)
      clearTimeout(quietTimer)
      stopListening()
    }
  }, [client, socket])

  return <CanQueryContext value={canQuery}>{children}</CanQueryContext>
}

/** Directives such as `@unmask` are for Apollo Client only. */
function withoutDirectives(document: DocumentNode): DocumentNode {
  return visit(document, { [Kind.DIRECTIVE]: () => null })
}

function codeOf(errors: unknown): string | null {
  if (!Array.isArray(errors)) return null
  const code: unknown = errors[0]?.extensions?.code
  return typeof code === 'string' ? code : null
}
