import { useState } from 'react'
import { useAuth, useMe } from './auth-context.ts'

const roles = { VIEWER: 'viewer', DEPLOYER: 'deployer', ADMIN: 'admin' }

/** Who is looking at the page, what they are here, and the way out. */
export function CurrentUser() {
  const me = useMe()
  const { signOut } = useAuth()
  const [leaving, setLeaving] = useState<'no' | 'yes' | 'failed'>('no')
  if (!me) return null

  async function leave() {
    setLeaving('yes')
    await signOut().catch(() => setLeaving('failed'))
  }

  return (
    <div className="who" data-testid="who">
      {me.expiresAt === null ? (
        <span>Everybody on this machine is an admin</span>
      ) : (
        <span>
          <b className="who-name">{me.name}</b> <span className="who-role">{roles[me.role]}</span>
        </span>
      )}
      {me.isSignedIn && (
        <button type="button" className="button button-small" disabled={leaving === 'yes'} onClick={leave}>
          {leaving === 'yes' ? 'Signing out…' : 'Sign out'}
        </button>
      )}
      {leaving === 'failed' && (
        <span className="fault" role="alert">
          You are still signed in: the server could not be reached. Try again.
        </span>
      )}
    </div>
  )
}
