/** What resolvers know of the request, whichever way it came. */
export interface RequestContext {
  /** The socket that the request came over, or that the sender says is its own (`x-connection-id`). */
  connectionId: string | undefined
  /** Aborted when nobody waits for the answer any more. */
  signal: AbortSignal
}
