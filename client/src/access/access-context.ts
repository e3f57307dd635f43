import { useReactiveVar } from '@apollo/client/react'
import { createContext, useContext } from 'react'
import type { Access, Me, Who } from './access.ts'

export const AccessContext = createContext<Access | null>(null)

export function useAccess(): Access {
  const access = useContext(AccessContext)
  if (!access) throw new Error('useAccess needs an AccessContext around it')
  return access
}

export function useWho(): Who {
  return useReactiveVar(useAccess().who)
}

/** Null: the server has not said. */
export function useMe(): Me | null {
  const who = useWho()
  return who.state === 'known' ? who.me : null
}
