import { RateLimitedError } from '../errors.ts'
import { Counts } from '../runtime/counts.ts'

/** What is held is returned as answers are sent: within seconds. */
const RETRY_AFTER_MS = 2_000

/** Counts the bytes that are held at the same time, of everyone together and of each subject. */
export class ByteBudget {
  private readonly bySubject = new Counts()
  private total = 0

  constructor(
    private readonly maxBytes: number,
    private readonly maxSubjectBytes: number,
  ) {}

  /** `isExempt`: only the bound for everyone applies. @throws RateLimited, and then nothing has been taken */
  reserve(subjectId: string, bytes: number, isExempt: boolean): void {
    if (this.bySubject.get(subjectId) + bytes > this.maxSubjectBytes && !isExempt) {
      throw new RateLimitedError('Your requests in progress are too large together.', RETRY_AFTER_MS)
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
