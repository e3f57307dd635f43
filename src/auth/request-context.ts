import type { Identity } from './credentials/authenticator.ts'
import type { Subject } from './rights.ts'

/** What resolvers know of the request, whichever way it came. */
export interface RequestContext {
  /** Who asks. */
  subject: Subject
  /** What the subject has shown; undefined: nothing, where everybody on this machine is let in. */
  credential: Identity['credential']
  /** Where it comes from: a network address. */
  address: string
  /** The socket that the request came over, or that the sender says is its own (`x-connection-id`). */
  connectionId: string | undefined
  /** Aborted when nobody waits for the answer any more. */
  signal: AbortSignal
}

/** Names a connection in the log: with its subject, so that nobody can pass off news as that of somebody else's. */
export function originOf({
  connectionId,
  subject,
}: Pick<RequestContext, 'connectionId' | 'subject'>): string | undefined {
  return connectionId === undefined ? undefined : `${connectionId} ${subject.id}`
}
