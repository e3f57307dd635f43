import { type ChildProcess, spawn } from 'node:child_process'
import { withTimeout } from '../../runtime/with-timeout.ts'
import type { SystemAccount } from './postgres-account.ts'

/**
 * Runs the command and reads a pipe from this process. A line requests a stop: INT, Postgres's "fast
 * shutdown". When this process dies for any reason, the pipe closes, and INT is repeated until the command
 * has ended: a background job of sh ignores INT until Postgres has installed its own handler. The shell
 * ignores HUP, INT and TERM, which are meant for this process (Ctrl-C, a service manager).
 */
const SUPERVISOR_SCRIPT = `
trap '' HUP INT TERM
exec 3<&0
"$@" </dev/null 3<&- &
command=$!
(
  while read -r line <&3; do kill -INT $command 2>/dev/null; done
  attempts=0
  while [ $attempts -lt 200 ] && kill -INT $command 2>/dev/null; do
    attempts=$((attempts + 1))
    sleep 0.2 || sleep 1
  done
  kill -QUIT $command 2>/dev/null
) &
supervisor=$!
wait $command
code=$?
kill -9 $supervisor 2>/dev/null
[ -z "$REMOVE_AT_END" ] || rmdir "$REMOVE_AT_END" 2>/dev/null
exit $code
`

const STOP_REPEAT_INTERVAL_MS = 200
const FAST_SHUTDOWN_TIMEOUT_MS = 30_000
const IMMEDIATE_SHUTDOWN_TIMEOUT_MS = 5_000
const MAX_OUTPUT_LENGTH = 8_192

/** A process that ends with this one, even after `kill -9`. */
export class SupervisedProcess {
  readonly exited: Promise<number>
  private readonly shell: ChildProcess
  isRunning = true
  private output = ''

  /** @param removeAtEnd an empty folder to remove when the command has ended */
  constructor(
    command: string,
    args: readonly string[],
    account: SystemAccount | undefined,
    removeAtEnd = '',
  ) {
    this.shell = spawn('/bin/sh', ['-c', SUPERVISOR_SCRIPT, 'supervisor', command, ...args], {
      // Our own environment contains credentials.
      env: { PATH: '/usr/local/bin:/usr/bin:/bin', LC_ALL: 'C', TZ: 'UTC', REMOVE_AT_END: removeAtEnd },
      cwd: '/',
      // Its own session: otherwise Ctrl-C would stop Postgres before the program that uses it.
      detached: true,
      stdio: ['pipe', 'pipe', 'pipe'],
      ...(account && { uid: account.uid, gid: account.gid }),
    })
    for (const stream of [this.shell.stdout, this.shell.stderr]) {
      stream?.on('data', (chunk: Buffer) => {
        this.output = (this.output + chunk.toString()).slice(-MAX_OUTPUT_LENGTH)
      })
    }
    this.shell.stdin?.on('error', () => {}) // The shell may be gone when the pipe is closed.
    this.exited = new Promise((resolve) => {
      this.shell.once('exit', (code) => resolve(code ?? -1))
      this.shell.once('error', (error) => {
        this.output += error.message
        resolve(-1)
      })
    })
    void this.exited.then(() => {
      this.isRunning = false
    })
  }

  /** The last lines of its output, for an error message. */
  lastLines(count = 6): string {
    return this.output.trim().split('\n').slice(-count).join('\n')
  }

  /** Requests a stop and waits for it; kills the command if it takes too long. */
  async stop(): Promise<void> {
    if (!this.isRunning) return
    const requestStop = () => this.shell.stdin?.write('stop\n')
    const timer = setInterval(requestStop, STOP_REPEAT_INTERVAL_MS)
    requestStop()
    if (!(await this.exitsWithin(FAST_SHUTDOWN_TIMEOUT_MS))) this.signalGroup('SIGQUIT')
    if (!(await this.exitsWithin(IMMEDIATE_SHUTDOWN_TIMEOUT_MS))) this.signalGroup('SIGKILL')
    await this.exited
    clearInterval(timer)
    this.shell.stdin?.destroy()
  }

  private exitsWithin(timeoutMs: number): Promise<boolean> {
    return withTimeout(
      this.exited.then(() => true),
      timeoutMs,
      false,
    )
  }

  private signalGroup(signal: NodeJS.Signals): void {
    try {
      if (this.shell.pid) process.kill(-this.shell.pid, signal)
    } catch {
      // It has just ended.
    }
  }
}
