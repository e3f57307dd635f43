import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { withTimeout } from './processes.ts'

const PROGRAM = fileURLToPath(new URL('./database-program.ts', import.meta.url))

type Answer = { rows: Record<string, unknown>[] } | { error: string }

/** A Node process that has a Database open on a folder. */
export class DatabaseProcess {
  readonly child: ChildProcess
  readonly exited: Promise<unknown>
  private readonly answers: AsyncIterator<string>

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
    if (!this.child.stdout) throw new Error('no stdout')
    this.answers = createInterface({ input: this.child.stdout })[Symbol.asyncIterator]()
  }

  /** Starts one and waits until its database is open. Fails with what the program says. */
  static async open(dataDir: string, uid?: number): Promise<DatabaseProcess> {
    const process = new DatabaseProcess(dataDir, uid)
    await process.waitUntilOpen()
    return process
  }

  async waitUntilOpen(): Promise<void> {
    await this.nextAnswer()
  }

  /** Fails with the statement's error, or when the process dies before it answers. */
  async query(statement: string): Promise<Record<string, unknown>[]> {
    this.child.stdin?.write(`${JSON.stringify(statement)}\n`)
    return this.nextAnswer()
  }

  async kill(): Promise<void> {
    this.child.kill('SIGKILL')
    await withTimeout(this.exited, 'the process ends')
  }

  async close(): Promise<void> {
    this.child.stdin?.end()
    await withTimeout(this.exited, 'the process ends')
  }

  private async nextAnswer(): Promise<Record<string, unknown>[]> {
    const { value, done } = await withTimeout(this.answers.next(), 'the process answers')
    if (done) throw new Error('The process has ended.')
    const answer: Answer = JSON.parse(value)
    if ('error' in answer) throw new Error(answer.error)
    return answer.rows
  }
}
