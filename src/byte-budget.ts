import { RateLimited } from './errors.ts'

export interface ByteBudgetOptions {
  /** For everyone together. */
  maxBytes: number
  /** For one subject. */
  maxSubjectBytes: number
  /** What is held by a subject is returned as answers are sent: within seconds. */
  retryAfterMs: number
}

/** Counts the bytes that are held at the same time, of everyone together and of each subject. */
export class ByteBudget {
  private readonly bySubject = new Map<string, number>()
  private total = 0

  constructor(private readonly options: ByteBudgetOptions) {}

  /** `isExempt`: only the bound for everyone applies. @throws RateLimited, and then nothing has been taken */
  take(subjectId: string, bytes: number, isExempt: boolean): void {
    const { maxBytes, maxSubjectBytes, retryAfterMs } = this.options
    const ofSubject = (this.bySubject.get(subjectId) ?? 0) + bytes
    if (ofSubject > maxSubjectBytes && !isExempt) {
      throw new RateLimited('Your requests in progress are too large together.', retryAfterMs)
    }
    if (this.total + bytes > maxBytes) {
      throw new RateLimited('This node is busy with large requests.', retryAfterMs)
    }
    this.total += bytes
    this.bySubject.set(subjectId, ofSubject)
  }

  giveBack(subjectId: string, bytes: number): void {
    this.total -= bytes
    const ofSubject = (this.bySubject.get(subjectId) ?? 0) - bytes
    if (ofSubject > 0) this.bySubject.set(subjectId, ofSubject)
    else this.bySubject.delete(subjectId)
  }
}
