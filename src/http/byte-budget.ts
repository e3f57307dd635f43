import { RateLimitedError } from '../errors.ts'
import { Counts } from '../runtime/counts.ts'

/** Bytes are released when responses are sent, within seconds. */
const RETRY_AFTER_MS = 2_000

/** Limits the bytes held at the same time, in total and for each subject. */
export class ByteBudget {
  private readonly bySubject = new Counts()
  private total = 0

  constructor(
    private readonly maxBytes: number,
    private readonly maxSubjectBytes: number,
  ) {}

  /** `isExempt`: only the total limit applies. @throws RateLimitedError, without reserving anything */
  reserve(subjectId: string, bytes: number, isExempt: boolean): void {
    if (this.bySubject.get(subjectId) + bytes > this.maxSubjectBytes && !isExempt) {
      throw new RateLimitedError(
        'The total size of your requests in progress exceeds the limit.',
        RETRY_AFTER_MS,
      )
    }
    if (this.total + bytes > this.maxBytes) {
      throw new RateLimitedError('This node is busy with large requests.', RETRY_AFTER_MS)
    }
    this.total += bytes
    this.bySubject.add(subjectId, bytes)
  }

  release(subjectId: string, bytes: number): void {
    this.total -= bytes
    this.bySubject.remove(subjectId, bytes)
  }
}
