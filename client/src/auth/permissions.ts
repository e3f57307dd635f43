import type { Me } from './auth.ts'

// What the page offers. The server enforces permissions; until it has identified the user, the page offers everything.

export function canDeploy(me: Me | null): boolean {
  return me === null || me.role !== 'VIEWER'
}

export function canDeployTo(me: Pick<Me, 'deploysTo'> | null, org: string): boolean {
  return !me?.deploysTo || me.deploysTo.includes(org.toLowerCase())
}

/** Whether the user can cancel and retry a deployment. Names are not unique: only ids identify the requester. */
export function canManage(me: Me | null, deployment: { org: string; requestedById: string | null }): boolean {
  if (me === null || me.role === 'ADMIN') return true
  return me.role === 'DEPLOYER' && canDeployTo(me, deployment.org) && deployment.requestedById === me.id
}
