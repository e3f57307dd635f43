import { useApolloClient } from '@apollo/client/react'
import { type DocumentNode, Kind, print, visit } from 'graphql'
import { createContext, type ReactNode, useContext, useEffect, useState } from 'react'
import type { DeploymentStatusSubscription } from '../gql/graphql.ts'
import { graphql } from '../gql/index.ts'
import { deploymentCache } from './apollo-client.ts'
import { useLiveSocket } from './live-socket-context.ts'
import { recordStart } from './recent-starts.ts'
import { learnServerTime } from './server-clock.ts'

const DeploymentStatus = graphql(`
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

/** How long a page waits for its first connection before it asks for what there is anyway. */
const patienceMs = 2_000
const silenceMs = 1_500

const JoinedContext = createContext(false)

/** True once queries may be sent: from then on no event is missed (see LiveDeployments). */
export function useJoined(): boolean {
  return useContext(JoinedContext)
}

/**
 * Turns the socket into cache. Every other part of the page reads the cache.
 *
 * Nothing is missed between a query and the events, because the order is: 1. the server's acknowledgement tells the head
 * of its log; 2. only then are queries sent (`useJoined`); 3. the subscription asks for everything after that head. What
 * is seen twice is merged by sequence. After a lost connection the subscription asks for everything after the last event
 * seen. A cursor that the server no longer knows empties the cache and begins at 1.
 */
export function LiveDeployments({ children }: { children: ReactNode }) {
  const client = useApolloClient()
  const socket = useLiveSocket()
  const [joined, setJoined] = useState(false)

  useEffect(() => {
    const cache = deploymentCache(client)
    const query = print(forServer(cache.transformDocument(DeploymentStatus)))
    const ended = new AbortController()
    let lastCursor: string | null = null
    let wasOpen = false
    let hasJoined = false
    let catchUpTo: string | null = null
    let silence: ReturnType<typeof setTimeout> | undefined

    const impatience = setTimeout(join, patienceMs)
    const stopListening = socket.onConnectionChange(onConnectionChange)
    onConnectionChange()
    follow()

    function onConnectionChange() {
      const { isOpen, headCursor } = socket.connection()
      if (isOpen && !wasOpen) onOpen(headCursor)
      wasOpen = isOpen
    }

    function onOpen(headCursor: string | null) {
      const canResume = lastCursor !== null
      lastCursor ??= headCursor
      expectUntil(headCursor)
      if (!canResume && hasJoined) void client.refetchQueries({ include: 'active' })
      join()
    }

    function join() {
      clearTimeout(impatience)
      hasJoined = true
      setJoined(true)
    }

    async function follow() {
      while (!ended.signal.aborted) {
        const code = await subscribe()
        if (ended.signal.aborted) return
        clearTimeout(silence)
        socket.fellBehind()
        if (code === 'CURSOR_UNKNOWN') await startAnew()
        await socket.backOff()
        expectUntil(null)
      }
    }

    /** Ends with the code of its error when the server ends the subscription. A lost connection does not end it. */
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
              // Read anew for each attempt: graphql-ws sends this same object again after a lost connection.
              get after() {
                return lastCursor
              },
            },
          },
          {
            next: ({ data, errors }) => {
              if (data) take(data.deploymentStatus)
              if (errors) end(codeOf(errors))
            },
            error: (error) => end(codeOf(error)),
            complete: () => end(null),
          },
        )
        ended.signal.addEventListener('abort', () => end(null))
      })
    }

    function take({ cursor, deployment, ...event }: DeploymentStatusSubscription['deploymentStatus']) {
      lastCursor = cursor
      learnServerTime(event.at)
      if (cache.recordEvent(event, deployment)) recordStart(deployment.id)
      if (catchUpTo !== null || socket.connection().state !== 'live') expectUntil(catchUpTo)
    }

    /** Live is what has reached the head of the log, or has been silent long enough to have had the time. */
    function expectUntil(cursor: string | null) {
      clearTimeout(silence)
      if (cursor !== null && cursor === lastCursor) {
        catchUpTo = null
        socket.caughtUp()
      } else {
        catchUpTo = cursor
        silence = setTimeout(() => socket.caughtUp(), silenceMs)
      }
    }

    async function startAnew() {
      lastCursor = socket.connection().headCursor
      cache.forgetAppearances()
      // A query that fails again says so where it is shown.
      await client.resetStore().catch(() => {})
    }

    return () => {
      ended.abort()
      clearTimeout(impatience)
      clearTimeout(silence)
      stopListening()
    }
  }, [client, socket])

  return <JoinedContext value={joined}>{children}</JoinedContext>
}

/** Without the directives that are between Apollo Client and us. */
function forServer(document: DocumentNode): DocumentNode {
  return visit(document, { [Kind.DIRECTIVE]: () => null })
}

function codeOf(errors: unknown): string | null {
  if (!Array.isArray(errors)) return null
  const code: unknown = errors[0]?.extensions?.code
  return typeof code === 'string' ? code : null
}
