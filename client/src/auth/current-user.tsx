import { useState } from 'react'
import { Button } from '../ui/button.tsx'
import text from '../ui/text.module.css'
import { useAuth, useMe } from './auth-context.ts'
import styles from './current-user.module.css'

const ROLE_NAMES = { VIEWER: 'viewer', DEPLOYER: 'deployer', ADMIN: 'admin' }

/** The user's name and role, and a button to sign out. */
export function CurrentUser() {
  const me = useMe()
  const auth = useAuth()
  const [signOutState, setSignOutState] = useState<'idle' | 'pending' | 'failed'>('idle')
  if (!me) return null

  async function signOut() {
    setSignOutState('pending')
    await auth.signOut().catch(() => setSignOutState('failed'))
  }

  const isPending = signOutState === 'pending'
  return (
    <div className={styles.user} data-testid="current-user">
      {me.expiresAt === null ? (
        <span>Anyone on this machine is an admin</span>
      ) : (
        <span>
          <b className={styles.name}>{me.name}</b> <span className={styles.role}>{ROLE_NAMES[me.role]}</span>
        </span>
      )}
      {me.isSignedIn && (
        <Button size="small" disabled={isPending} onClick={signOut}>
          {isPending ? 'Signing out…' : 'Sign out'}
        </Button>
      )}
      {signOutState === 'failed' && (
        <span className={text.error} role="alert">
          You are still signed in because the server could not be reached. Try again.
        </span>
      )}
    </div>
  )
}
