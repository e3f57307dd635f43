import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'

/** A program from a document, as a reader would copy it, in its own process. */
export class ClientProgram {
  private readonly child: ChildProcess
  private readonly changes = new EventTarget()
  output = ''

  constructor(file: string) {
    this.child = spawn(process.execPath, [file], { stdio: ['ignore', 'pipe', 'pipe'] })
    const append = (chunk: Buffer) => {
      this.output += chunk
      this.changes.dispatchEvent(new Event('change'))
    }
    this.child.stdout!.on('data', append)
    this.child.stderr!.on('data', append)
    this.child.once('close', () => this.changes.dispatchEvent(new Event('change')))
  }

  get hasEnded(): boolean {
    return this.child.exitCode !== null || this.child.signalCode !== null
  }

  /** Resolves once the output matches; rejects with the output if the program ends first or time runs out. */
  async waitForOutput(pattern: RegExp, timeoutMs = 60_000): Promise<void> {
    const timeout = AbortSignal.timeout(timeoutMs)
    while (!pattern.test(this.output)) {
      if (this.hasEnded || timeout.aborted)
        throw new Error(`The output does not match ${pattern}:\n${this.output}`)
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
