/** What requests may take of one turn of the event loop before the next ones wait for another turn. */
const SLICE_MS = 10

/**
 * Shares the event loop between those who send requests: whoever comes when much has been done in this turn waits for a
 * later one, so that any number of requests that arrive together stall the loop for a slice and the longest of them, and
 * not for their sum. Subjects take turns in the line.
 *
 *   await turns.enter(subject.id)
 *   // what follows, up to the next wait for something outside, is done in one go
 */
export class Turns {
  /** Those who wait, by subject; the first subject is next. */
  private readonly lines = new Map<string, (() => void)[]>()
  private startedAt = 0
  private isScheduled = false
  /** Somebody has been let in, and has not done yet what follows. */
  private isTaken = false
  /** Somebody has gone on at once in this turn. */
  private isUsed = false

  constructor(private readonly sliceMs = SLICE_MS) {}

  /** Whether something short may be done at once: nobody waits, and little has been done in this turn. */
  get isFree(): boolean {
    this.schedule()
    const isFree = this.lines.size === 0 && !this.isTaken && !this.isOver
    this.isUsed ||= isFree
    return isFree
  }

  /** Resolves at once, or when it is the subject's turn. */
  async enter(subjectId: string): Promise<void> {
    if (this.isFree) this.take()
    else await new Promise<void>((resolve) => this.wait(subjectId, resolve))
  }

  /** Between two long parts of a request: the same when much has been done in this turn. */
  async pause(subjectId: string): Promise<void> {
    this.schedule()
    if (this.isOver) await new Promise<void>((resolve) => this.wait(subjectId, resolve))
  }

  /** Calls back when it is the subject's turn, which is not at once. */
  wait(subjectId: string, go: () => void): void {
    const line = this.lines.get(subjectId)
    if (line) line.push(go)
    else this.lines.set(subjectId, [go])
    this.schedule()
  }

  private get isOver(): boolean {
    return performance.now() - this.startedAt >= this.sliceMs
  }

  private schedule(): void {
    if (this.isScheduled) return
    this.isScheduled = true
    this.startedAt = performance.now()
    setImmediate(this.begin)
  }

  private readonly begin = (): void => {
    this.isScheduled = false
    const isOver = this.isUsed && this.isOver
    this.isUsed = false
    if (this.lines.size === 0) return
    this.schedule()
    // Those in line have the next turn: nobody goes on at once in it.
    if (!isOver) this.admit()
  }

  private take(): void {
    this.isTaken = true
    // Promises come before the next tick: by then all that follows has been done.
    queueMicrotask(() => process.nextTick(this.leave))
  }

  private readonly leave = (): void => {
    this.isTaken = false
    this.admit()
  }

  private admit(): void {
    const [next] = this.lines
    if (!next || this.isTaken || this.isOver) return
    const [subjectId, line] = next
    const go = line.shift()
    this.lines.delete(subjectId)
    // To the end of the line.
    if (line.length > 0) this.lines.set(subjectId, line)
    this.take()
    go?.()
  }
}

/** Of this process, which has one event loop. */
export const turns = new Turns()
