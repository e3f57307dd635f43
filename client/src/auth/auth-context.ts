import { useReactiveVar } from '@apollo/client/react'
import { createContext, useContext } from 'react'
import type { Auth, AuthState, Me } from './auth.ts'

export const AuthContext = createContext<Auth | null>(null)

export function useAuth(): Auth {
  const auth = useContext(AuthContext)
  if (!auth) throw new Error('useAuth requires an AuthContext')
  return auth
}

export function useAuthState(): AuthState {
  return useReactiveVar(useAuth().state)
}

/** Null while the server has not identified the user. */
export function useMe(): Me | null {
  const auth = useAuthState()
  return auth.status === 'known' ? auth.me : null
}
