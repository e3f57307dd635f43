import type { AccessSettings } from '../config.ts'

/** A way for people to sign in: what the page shows on its button, and where that leads. */
export interface SignInOption {
  name: string
  url: string
}

export function signInOptions({ oidc, github }: Pick<AccessSettings, 'oidc' | 'github'>): SignInOption[] {
  return [
    ...(oidc ? [{ name: oidc.name, url: '/auth/oidc' }] : []),
    ...(github ? [{ name: 'GitHub', url: '/auth/github' }] : []),
  ]
}
