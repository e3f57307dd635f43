import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { monotonicNowMs } from './clock.ts'

const STOP_GRACE_MS = 15_000

/**
 * A process of the bench that runs commands. Every request has a deadline, and its error names the command.
 */
export class BenchProcess {
  private readonly name: string
  private readonly process: ChildProcess
  private readonly pendingRequests = new Map<
    number,
    { resolve: (result: never) => void; reject: (error: Error) => void }
  >()
  private requestCount = 0

  private constructor(name: string, child: ChildProcess) {
    this.name = name
    this.process = child
    child.on('message', ({ id, result, error }: Response) => {
      const pending = this.pendingRequests.get(id)
      this.pendingRequests.delete(id)
      if (error === undefined) pending?.resolve(result as never)
      else pending?.reject(new Error(`${name}: ${error}`))
    })
    child.once('exit', (code, signal) => {
      for (const { reject } of this.pendingRequests.values())
        reject(new Error(`${name} ended with ${code ?? signal}.`))
      this.pendingRequests.clear()
    })
  }

  /** Resolves once the process accepts commands. */
  static async start(
    name: string,
    file: string,
    env: NodeJS.ProcessEnv = {},
    flags: readonly string[] = [],
  ): Promise<BenchProcess> {
    const forked = fork(new URL(file, import.meta.url), {
      env: { ...process.env, ...env, NODE_ENV: 'production' },
      // The other servers warn about their many listeners.
      execArgv: ['--expose-gc', '--no-warnings', ...flags],
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    })
    const child = new BenchProcess(name, forked)
    await child.request('ready', {}, 60_000).catch(async (error: unknown) => {
      await child.stop()
      throw error
    })
    return child
  }

  request<Result = void>(command: string, input: object = {}, deadlineMs = 30_000): Promise<Result> {
    const id = ++this.requestCount
    const startedAt = monotonicNowMs()
    return new Promise<Result>((resolve, reject) => {
      if (!this.process.connected) {
        reject(new Error(`${this.name} has ended; it cannot run "${command}".`))
        return
      }
      const deadline = setTimeout(() => {
        this.pendingRequests.delete(id)
        reject(
          new Error(
            `${this.name} did not respond to "${command}" within ${Math.round(monotonicNowMs() - startedAt)} ms.`,
          ),
        )
      }, deadlineMs)
      this.pendingRequests.set(id, {
        resolve: (result) => {
          clearTimeout(deadline)
          resolve(result)
        },
        reject: (error) => {
          clearTimeout(deadline)
          reject(error)
        },
      })
      this.process.send({ id, command, input })
    })
  }

  async stop(): Promise<void> {
    const { process: child } = this
    if (child.exitCode !== null || child.signalCode !== null) return
    const exited = once(child, 'exit')
    if (child.connected) child.send({ id: 0, command: 'stop', input: {} })
    const kill = setTimeout(() => child.kill('SIGKILL'), STOP_GRACE_MS)
    await exited
    clearTimeout(kill)
  }
}

interface Response {
  id: number
  result?: unknown
  error?: string
}

// biome-ignore lint/suspicious/noExplicitAny: commands do not validate input from their own bench.
type Commands = Record<string, (input: any) => unknown>

/** Runs in the child process: serves commands until `stop`, or until the parent ends. */
export function serveCommands(commands: Commands, stop: () => Promise<void>): void {
  const end = () => {
    void stop().finally(() => process.exit())
  }
  process.on('disconnect', end)
  process.on('message', async ({ id, command, input }: { id: number; command: string; input: object }) => {
    if (command === 'stop') return end()
    try {
      const run = command === 'ready' ? () => true : commands[command]
      if (!run) throw new Error(`unknown command "${command}"`)
      process.send?.({ id, result: await run(input) })
    } catch (error) {
      process.send?.({ id, error: error instanceof Error ? (error.stack ?? error.message) : String(error) })
    }
  })
}
