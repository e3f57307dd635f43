import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'

/** A program of a reader's own, copied from a document, in a process of its own. */
export class ClientProgram {
  private readonly child: ChildProcess
  private readonly changes = new EventTarget()
  output = ''

  constructor(file: string) {
    this.child = spawn(process.execPath, [file], { stdio: ['ignore', 'pipe', 'pipe'] })
    const take = (chunk: Buffer) => {
      this.output += chunk
      this.changes.dispatchEvent(new Event('change'))
    }
    this.child.stdout!.on('data', take)
    this.child.stderr!.on('data', take)
    this.child.once('close', () => this.changes.dispatchEvent(new Event('change')))
  }

  get hasEnded(): boolean {
    return this.child.exitCode !== null || this.child.signalCode !== null
  }

  /** Waits until it has printed this; rejects with what it has printed when it ends before, or within the time. */
  async waitForOutput(pattern: RegExp, timeoutMs = 60_000): Promise<void> {
    const timeout = AbortSignal.timeout(timeoutMs)
    while (!pattern.test(this.output)) {
      if (this.hasEnded || timeout.aborted)
        throw new Error(`Not printed: ${pattern}. Printed:\n${this.output}`)
      await Promise.race([once(this.changes, 'change'), once(timeout, 'abort')])
    }
  }

  async waitForExit(): Promise<void> {
    if (!this.hasEnded) await once(this.child, 'exit', { signal: AbortSignal.timeout(60_000) })
  }

  async stop(): Promise<void> {
    this.child.kill()
    await this.waitForExit()
  }
}
