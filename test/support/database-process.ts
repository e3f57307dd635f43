import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { withTimeout } from './processes.ts'

const PROGRAM = fileURLToPath(new URL('./database-program.ts', import.meta.url))

type Response = { rows: Record<string, unknown>[] } | { error: string }

/** A Node process with an open Database on a folder. */
export class DatabaseProcess {
  readonly child: ChildProcess
  readonly exited: Promise<unknown>
  private readonly responses: AsyncIterator<string>

  constructor(dataDir: string, uid?: number, env: Record<string, string> = {}) {
    const args = [
      '--disable-warning=ExperimentalWarning',
      PROGRAM,
      dataDir,
      ...(uid === undefined ? [] : [String(uid)]),
    ]
    this.child = spawn(process.execPath, args, {
      stdio: ['pipe', 'pipe', 'ignore'],
      cwd: '/',
      env: { ...process.env, ...env },
    })
    this.exited = once(this.child, 'exit')
    this.child.stdin?.on('error', () => {}) // It may have been killed.
    if (!this.child.stdout) throw new Error('The process has no stdout.')
    this.responses = createInterface({ input: this.child.stdout })[Symbol.asyncIterator]()
  }

  /** Starts a process and waits until its database is open. Fails with the program's error. */
  static async open(dataDir: string, uid?: number): Promise<DatabaseProcess> {
    const process = new DatabaseProcess(dataDir, uid)
    await process.waitUntilOpen()
    return process
  }

  async waitUntilOpen(): Promise<void> {
    await this.nextResponse()
  }

  /** Fails with the statement's error, or if the process ends before it responds. */
  async query(statement: string): Promise<Record<string, unknown>[]> {
    this.child.stdin?.write(`${JSON.stringify(statement)}\n`)
    return this.nextResponse()
  }

  async kill(): Promise<void> {
    this.child.kill('SIGKILL')
    await withTimeout(this.exited, 'the process ends')
  }

  async close(): Promise<void> {
    this.child.stdin?.end()
    await withTimeout(this.exited, 'the process ends')
  }

  private async nextResponse(): Promise<Record<string, unknown>[]> {
    const { value, done } = await withTimeout(this.responses.next(), 'the process responds')
    if (done) throw new Error('The process has ended.')
    const response: Response = JSON.parse(value)
    if ('error' in response) throw new Error(response.error)
    return response.rows
  }
}
