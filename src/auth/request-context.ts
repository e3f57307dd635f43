import type { Identity } from './credentials/authenticator.ts'

/** Who sent a request, and from where. */
export interface Principal extends Identity {
  /** A network address. */
  readonly address: string
}

/** The context of a resolver, over HTTP and over the socket alike. */
export interface RequestContext extends Principal {
  /** The socket that carries the request, or the one that an HTTP request names in `x-connection-id`. */
  connectionId: string | undefined
  /** Aborted when the client no longer waits for the response. */
  signal: AbortSignal
}

/** Identifies a connection in the log. Includes the subject, so that no client can impersonate another. */
export function originOf({
  connectionId,
  subject,
}: Pick<RequestContext, 'connectionId' | 'subject'>): string | undefined {
  return connectionId === undefined ? undefined : `${connectionId} ${subject.id}`
}
