import type { Me } from './auth.ts'

// What the page offers. The server decides all the same, so whoever it has not said anything about is offered all.

export function canDeploy(me: Me | null): boolean {
  return me === null || me.role !== 'VIEWER'
}

export function canDeployTo(me: Me | null, org: string): boolean {
  return !me?.deploysTo || me.deploysTo.includes(org.toLowerCase())
}

/** Whether somebody may cancel and retry a deployment. */
export function canManage(
  me: Me | null,
  deployment: { org: string; requestedBy: string | null; requestedByKind: Me['kind'] | null },
): boolean {
  if (me === null || me.role === 'ADMIN') return true
  const isOwn = deployment.requestedBy === me.name && deployment.requestedByKind === me.kind
  return me.role === 'DEPLOYER' && canDeployTo(me, deployment.org) && isOwn
}
