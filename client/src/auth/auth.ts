import { type ApolloClient, makeVar, type ReactiveVar } from '@apollo/client'
import type { MeQuery } from '../gql/graphql.ts'
import { graphql } from '../gql/index.ts'
import type { LiveSocket } from '../live/live-socket.ts'
import type { SignInProvider } from '../live/request-failure.ts'

const ME = graphql(`
  query Me {
    me {
      id
      name
      role
      sees
      deploysTo
      isSignedIn
      expiresAt
    }
  }
`)

export type Me = MeQuery['me']

/**
 * What is known about the current user.
 *
 *   loading ──> known <──> unknown: no response from the server
 *                 │
 *                 └──401, or signed out──> signedOut ──signed in, here or in another tab──> the page reloads
 */
export type AuthState =
  | { status: 'loading' | 'unknown' }
  | { status: 'known'; me: Me }
  | { status: 'signedOut'; providers: readonly SignInProvider[]; reason: SignedOutReason }

export type SignedOutReason = 'notSignedIn' | 'sessionEnded' | 'signedOut'

export interface Auth {
  state: ReactiveVar<AuthState>
  /** Rejects when the server could not be reached. */
  signOut(): Promise<void>
  onUnauthenticated(providers: readonly SignInProvider[]): void
}

export function createAuth(client: ApolloClient, socket: LiveSocket): Auth {
  const state = makeVar<AuthState>({ status: 'loading' })
  const otherTabs = new BroadcastChannel('shipcast.auth')
  let refreshing: Promise<void> | undefined
  let isStale = false
  let isSigningOut = false
  let wasOpen = false

  otherTabs.onmessage = ({ data: id }) => {
    const current = state()
    if (current.status !== 'known' || current.me.id !== id) void refresh()
  }
  socket.onAccessChange(() => void refresh())
  socket.onConnectionChange(() => {
    const { isOpen } = socket.connection()
    const current = state()
    // Changes made while the socket was closed were not announced.
    const mayHaveChanged =
      current.status === 'unknown' || (current.status === 'known' && current.me.expiresAt !== null)
    if (isOpen && !wasOpen && mayHaveChanged) void refresh()
    wasOpen = isOpen
  })
  void refresh()

  /** Fetches once more if a request is in progress: its response may predate the change. */
  function refresh(): Promise<void> {
    isStale = true
    refreshing ??= fetchUntilFresh().finally(() => {
      refreshing = undefined
    })
    return refreshing
  }

  async function fetchUntilFresh() {
    while (isStale) {
      isStale = false
      try {
        const { data } = await client.query({ query: ME, fetchPolicy: 'no-cache' })
        if (data) await onIdentified(data.me)
      } catch {
        // A 401 has already been handled by onUnauthenticated.
        if (state().status === 'loading') state({ status: 'unknown' })
      }
    }
  }

  async function onIdentified(me: Me) {
    const previous = state()
    const isAnotherUser =
      previous.status === 'signedOut' || (previous.status === 'known' && previous.me.id !== me.id)
    // A reload leaves nothing that the previous user has seen or typed.
    if (isAnotherUser) return window.location.reload()
    state({ status: 'known', me })
    if (me.isSignedIn) otherTabs.postMessage(me.id)
    // Refetch what is visible under the new rights; events continue from their cursor. Failed queries show
    // their own errors.
    if (previous.status === 'known' && rightsOf(previous.me) !== rightsOf(me))
      await client.resetStore().catch(() => {})
  }

  function onUnauthenticated(providers: readonly SignInProvider[]) {
    const previous = state()
    if (previous.status === 'signedOut') return
    const wasKnown = previous.status === 'known'
    const reason = isSigningOut ? 'signedOut' : wasKnown ? 'sessionEnded' : 'notSignedIn'
    state({ status: 'signedOut', providers, reason })
    socket.close()
    void client.clearStore()
  }

  async function signOut() {
    // Set first: the socket may close before the response arrives.
    isSigningOut = true
    try {
      const response = await fetch('/auth/sign-out', { method: 'POST' })
      // 401: the session had already ended.
      if (!response.ok && response.status !== 401) throw new Error(`Status ${response.status}`)
    } catch (error) {
      isSigningOut = false
      throw error
    }
    await refresh()
    otherTabs.postMessage(null)
  }

  return { state, signOut, onUnauthenticated }
}

function rightsOf({ role, sees, deploysTo }: Me): string {
  return JSON.stringify([role, sees, deploysTo])
}
