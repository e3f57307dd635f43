import {
  CredentialPauses,
  type CredentialState,
  type Turn,
} from '../../../src/github/rest/credential-pauses.ts'

/** For one process without a database: tests, benches. */
export class MemoryPauses extends CredentialPauses {
  strikes = 0
  pauses = 0
  until = 0
  #nextWriteAt = 0
  #isStruckByWrite = false

  async state(): Promise<CredentialState> {
    return { pausedForMs: this.until - Date.now(), strikes: this.strikes, pauses: this.pauses }
  }

  async takeTurn(_id: string, spacingMs: number, mostWaitMs: number): Promise<Turn> {
    const waitMs = Math.max(0, this.#nextWriteAt - Date.now())
    if (waitMs > mostWaitMs) return { isReserved: false, waitMs }
    this.#nextWriteAt = Date.now() + waitMs + spacingMs
    return { isReserved: true, waitMs }
  }

  async takeCreation(): Promise<Turn> {
    return { isReserved: true, waitMs: 0 }
  }

  async strike(
    _id: string,
    seen: CredentialState,
    { pauseMs, isWrite }: { pauseMs: number; isWrite: boolean },
  ) {
    this.until = Math.max(this.until, Date.now() + pauseMs)
    this.#isStruckByWrite = isWrite
    if (seen.pauses === this.pauses) {
      this.strikes++
      this.pauses++
    }
    return this.state()
  }

  async succeed(_id: string, seen: CredentialState, isWrite: boolean): Promise<void> {
    if (seen.pauses === this.pauses && (isWrite || !this.#isStruckByWrite)) this.strikes = 0
  }
}
