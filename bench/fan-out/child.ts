import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { clock } from './clock.ts'

const STOP_GRACE_MS = 15_000

/** A process of the bench that answers commands. Every wait has a deadline, and fails with what it waited for. */
export class Child {
  private readonly name: string
  private readonly process: ChildProcess
  private readonly waiting = new Map<
    number,
    { resolve: (answer: never) => void; reject: (e: Error) => void }
  >()
  private asked = 0

  private constructor(name: string, child: ChildProcess) {
    this.name = name
    this.process = child
    child.on('message', ({ id, answer, error }: Answer) => {
      const asking = this.waiting.get(id)
      this.waiting.delete(id)
      if (error === undefined) asking?.resolve(answer as never)
      else asking?.reject(new Error(`${name}: ${error}`))
    })
    child.once('exit', (code, signal) => {
      for (const { reject } of this.waiting.values())
        reject(new Error(`${name} ended with ${code ?? signal}.`))
      this.waiting.clear()
    })
  }

  /** Resolves once the process is ready to be asked. */
  static async start(
    name: string,
    file: string,
    env: NodeJS.ProcessEnv = {},
    flags: readonly string[] = [],
  ): Promise<Child> {
    const process_ = fork(new URL(file, import.meta.url), {
      env: { ...process.env, ...env, NODE_ENV: 'production' },
      // The peers warn of their many listeners.
      execArgv: ['--expose-gc', '--no-warnings', ...flags],
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    })
    const child = new Child(name, process_)
    await child.ask('ready', {}, 60_000).catch(async (error: unknown) => {
      await child.stop()
      throw error
    })
    return child
  }

  ask<Result = void>(command: string, input: object = {}, deadlineMs = 30_000): Promise<Result> {
    const id = ++this.asked
    const started = clock()
    return new Promise<Result>((resolve, reject) => {
      if (!this.process.connected) {
        reject(new Error(`${this.name} is gone; it cannot "${command}".`))
        return
      }
      const deadline = setTimeout(() => {
        this.waiting.delete(id)
        reject(
          new Error(`${this.name} has not answered "${command}" in ${Math.round(clock() - started)} ms.`),
        )
      }, deadlineMs)
      this.waiting.set(id, {
        resolve: (answer) => {
          clearTimeout(deadline)
          resolve(answer)
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

interface Answer {
  id: number
  answer?: unknown
  error?: string
}

// biome-ignore lint/suspicious/noExplicitAny: each command checks nothing of what its own bench sends it.
type Commands = Record<string, (input: any) => unknown>

/** The other end: runs in the child, answers until it is told to stop or its parent is gone. */
export function answerParent(commands: Commands, stop: () => Promise<void>): void {
  const end = () => {
    void stop().finally(() => process.exit())
  }
  process.on('disconnect', end)
  process.on('message', async ({ id, command, input }: { id: number; command: string; input: object }) => {
    if (command === 'stop') return end()
    try {
      const run = command === 'ready' ? () => true : commands[command]
      if (!run) throw new Error(`unknown command "${command}"`)
      process.send?.({ id, answer: await run(input) })
    } catch (error) {
      process.send?.({ id, error: error instanceof Error ? (error.stack ?? error.message) : String(error) })
    }
  })
}
