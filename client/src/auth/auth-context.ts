import { useReactiveVar } from '@apollo/client/react'
import { createContext, useContext } from 'react'
import type { Access, Me, Who } from './auth.ts'

export const AuthContext = createContext<Access | null>(null)

export function useAuth(): Access {
  const access = useContext(AuthContext)
  if (!access) throw new Error('useAuth needs an AuthContext around it')
  return access
}

export function useAuthState(): Who {
  return useReactiveVar(useAuth().who)
}

/** Null: the server has not said. */
export function useMe(): Me | null {
  const who = useAuthState()
  return who.state === 'known' ? who.me : null
}
