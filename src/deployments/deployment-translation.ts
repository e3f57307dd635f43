import { subjectKind } from '../auth/rights.ts'
import type { DeploymentSnapshot, LoggedEvent } from '../events/logged-event.ts'
import type { Deployment } from './deployment.model.ts'
import type { DeploymentEvent } from './deployment-event.model.ts'

/** As GraphQL tells it. */
export function toDeployment(snapshot: DeploymentSnapshot): Deployment {
  return {
    ...snapshot,
    waitingUntil: toDate(snapshot.waitingUntil),
    createdAt: new Date(snapshot.createdAt),
    updatedAt: new Date(snapshot.updatedAt),
    finishedAt: toDate(snapshot.finishedAt),
    requestedBy: snapshot.requestedBy?.name ?? null,
    requestedByKind: snapshot.requestedBy ? subjectKind(snapshot.requestedBy.id) : null,
    requestedBySubjectId: snapshot.requestedBy?.id ?? null,
    warnings: snapshot.warnings ?? [],
    warningCount: snapshot.warningCount ?? 0,
  }
}

/** As GraphQL tells it: most of an event is the deployment as it was then. */
export function toDeploymentEvent(event: LoggedEvent, cursor: string): DeploymentEvent {
  const deployment = toDeployment(event.deployment)
  return {
    deploymentId: event.deploymentId,
    sequence: event.sequence,
    cursor,
    step: deployment.step,
    status: deployment.status,
    text: deployment.text,
    progress: deployment.progress,
    waitingUntil: deployment.waitingUntil,
    error: deployment.error,
    at: event.at,
    deployment,
  }
}

function toDate(time: string | null): Date | null {
  return time === null ? null : new Date(time)
}
