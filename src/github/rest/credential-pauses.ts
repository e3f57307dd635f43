/** What GitHub has told a credential about its rate limits, as far as we remember. */
export interface CredentialState {
  /** Milliseconds until it may ask again; 0 or less: now. */
  pausedForMs: number
  /** Rate-limit answers in a row, each after the pause of the one before. */
  strikes: number
  /** Pauses there ever were: tells an answer of before a pause from one after it. */
  pauses: number
}

/** A turn that is reserved: milliseconds to wait for it. Not reserved: it would be too long. */
export type Turn = { isReserved: boolean; waitMs: number }

/**
 * Remembers, for each credential, until when it has to pause, and gives out turns to write. Shared by all nodes when it
 * is kept in the database, so that a pause outlives a restart and holds for everybody.
 */
export abstract class CredentialPauses {
  abstract state(credentialId: string): Promise<CredentialState>

  /** The next turn to write: `spacingMs` after the one before, if that is within `mostWaitMs`. */
  abstract takeTurn(credentialId: string, spacingMs: number, mostWaitMs: number): Promise<Turn>

  /** A repository of this hour, if there are fewer than `most`. */
  abstract takeCreation(credentialId: string, most: number): Promise<Turn>

  /**
   * Notes a rate-limit answer to a request that was sent when `seen` was the state. Only the first such answer of a
   * pause is a strike; the later ones were on their way already.
   */
  abstract strike(
    credentialId: string,
    seen: CredentialState,
    limit: { pauseMs: number; isWrite: boolean },
  ): Promise<CredentialState>

  /** Notes a request that got through. A read says nothing about a limit for writes. */
  abstract succeed(credentialId: string, seen: CredentialState, isWrite: boolean): Promise<void>
}
