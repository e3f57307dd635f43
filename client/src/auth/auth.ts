import { type ApolloClient, makeVar, type ReactiveVar } from '@apollo/client'
import type { MeQuery } from '../gql/graphql.ts'
import { graphql } from '../gql/index.ts'
import type { LiveSocket } from '../live/live-socket.ts'
import type { SignInProvider } from '../live/request-failure.ts'

const ME = graphql(`
  query Me {
    me {
      name
      kind
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
 * Who is looking at this page, as far as the server has said.
 *
 *   asking ──> known <──> unknown: the server does not answer; what it has to show says so itself
 *                │
 *                └──401, or signed out──> signedOut ──signed in, here or in another tab──> the page is loaded anew
 */
export type Who =
  | { state: 'asking' | 'unknown' }
  | { state: 'known'; me: Me }
  | { state: 'signedOut'; ways: readonly SignInProvider[]; why: 'unknown' | 'ended' | 'asked' }

export interface Access {
  who: ReactiveVar<Who>
  /** Rejects when the server could not be reached. */
  signOut(): Promise<void>
  /** The server does not know any more who asks. */
  refused(ways: readonly SignInProvider[]): void
}

export function createAuth(client: ApolloClient, socket: LiveSocket): Access {
  const who = makeVar<Who>({ state: 'asking' })
  const otherTabs = new BroadcastChannel('shipcast.access')
  let asking: Promise<void> | undefined
  let askAgain = false
  let hasAskedToLeave = false

  otherTabs.onmessage = ({ data }) => {
    const now = who()
    if (now.state !== 'known' || now.me.name !== data) void ask()
  }
  socket.onAccessChange(() => void ask())
  let wasOpen = false
  socket.onConnectionChange(() => {
    const { isOpen } = socket.connection()
    const now = who()
    // What has changed while there was no connection, nobody has told.
    const mayHaveChanged = now.state === 'unknown' || (now.state === 'known' && now.me.expiresAt !== null)
    if (isOpen && !wasOpen && mayHaveChanged) void ask()
    wasOpen = isOpen
  })
  void ask()

  /** Once more where it is being asked already: that answer may be from before what is asked about. */
  function ask(): Promise<void> {
    askAgain = true
    asking ??= askUntilSettled().finally(() => {
      asking = undefined
    })
    return asking
  }

  async function askUntilSettled() {
    while (askAgain) {
      askAgain = false
      try {
        const { data } = await client.query({ query: ME, fetchPolicy: 'no-cache' })
        if (data) await known(data.me)
      } catch {
        // Whoever is not let in has been sent to sign in by then.
        if (who().state === 'asking') who({ state: 'unknown' })
      }
    }
  }

  async function known(me: Me) {
    const before = who()
    const isAnother = before.state === 'signedOut' || (before.state === 'known' && before.me.name !== me.name)
    // Nothing of what the one before has seen or typed is left.
    if (isAnother) return window.location.reload()
    who({ state: 'known', me })
    if (me.isSignedIn) otherTabs.postMessage(me.name)
    // What may not be seen any more is gone, what may be seen now is there; the events go on from their cursor.
    // A query that fails again says so where it is shown.
    if (before.state === 'known' && rightsOf(before.me) !== rightsOf(me))
      await client.resetStore().catch(() => {})
  }

  function refused(ways: readonly SignInProvider[]) {
    const before = who()
    if (before.state === 'signedOut') return
    const why = hasAskedToLeave ? 'asked' : before.state === 'known' ? 'ended' : 'unknown'
    who({ state: 'signedOut', ways, why })
    socket.close()
    void client.clearStore()
  }

  async function signOut() {
    // The socket may tell of it before the answer comes.
    hasAskedToLeave = true
    try {
      const response = await fetch('/auth/sign-out', { method: 'POST' })
      // 401: it had ended before.
      if (!response.ok && response.status !== 401) throw new Error(`Status ${response.status}`)
    } catch (error) {
      hasAskedToLeave = false
      throw error
    }
    await ask()
    otherTabs.postMessage(null)
  }

  return { who, signOut, refused }
}

function rightsOf({ role, sees, deploysTo }: Me): string {
  return JSON.stringify([role, sees, deploysTo])
}
