import { type ChildProcess, spawn } from 'node:child_process'
import { setTimeout as sleep } from 'node:timers/promises'
import type { SystemAccount } from './postgres-account.ts'

/**
 * Starts the command and reads a pipe from us. A line asks for the end: INT, for Postgres a "fast shutdown".
 * When we die, however that is, the pipe closes, and INT repeats until the command is gone: a background job
 * of sh ignores INT until Postgres has installed its own handler. HUP, INT and TERM meant for us (Ctrl-C, a
 * service manager) pass the shell by.
 */
const SUPERVISOR_SCRIPT = `
trap '' HUP INT TERM
exec 3<&0
"$@" </dev/null 3<&- &
command=$!
(
  while read -r line <&3; do kill -INT $command 2>/dev/null; done
  tries=0
  while [ $tries -lt 200 ] && kill -INT $command 2>/dev/null; do
    tries=$((tries + 1))
    sleep 0.2 || sleep 1
  done
  kill -QUIT $command 2>/dev/null
) &
leash=$!
wait $command
code=$?
kill -9 $leash 2>/dev/null
[ -z "$REMOVE_AT_END" ] || rmdir "$REMOVE_AT_END" 2>/dev/null
exit $code
`

const STOP_REPEAT_INTERVAL_MS = 200
const FAST_SHUTDOWN_TIMEOUT_MS = 30_000
const IMMEDIATE_SHUTDOWN_TIMEOUT_MS = 5_000
const MAX_LOG_BYTES = 8_192

/** A process that ends with us, even after `kill -9`. */
export class SupervisedProcess {
  readonly exited: Promise<number>
  private readonly shell: ChildProcess
  private running = true
  private log = ''

  /** @param removeAtEnd an empty folder that is removed when the command has ended */
  constructor(
    command: string,
    args: readonly string[],
    account: SystemAccount | undefined,
    removeAtEnd = '',
  ) {
    this.shell = spawn('/bin/sh', ['-c', SUPERVISOR_SCRIPT, 'leash', command, ...args], {
      // Only what is needed: our own environment holds credentials.
      env: { PATH: '/usr/local/bin:/usr/bin:/bin', LC_ALL: 'C', TZ: 'UTC', REMOVE_AT_END: removeAtEnd },
      cwd: '/',
      // A session of its own: Ctrl-C would otherwise stop Postgres before the program that uses it.
      detached: true,
      stdio: ['pipe', 'pipe', 'pipe'],
      ...(account && { uid: account.uid, gid: account.gid }),
    })
    for (const output of [this.shell.stdout, this.shell.stderr]) {
      output?.on('data', (chunk: Buffer) => {
        this.log = (this.log + chunk.toString()).slice(-MAX_LOG_BYTES)
      })
    }
    this.shell.stdin?.on('error', () => {}) // The shell may be gone when we close the pipe.
    this.exited = new Promise((resolve) => {
      this.shell.once('exit', (code) => resolve(code ?? -1))
      this.shell.once('error', (error) => {
        this.log += error.message
        resolve(-1)
      })
    })
    void this.exited.then(() => {
      this.running = false
    })
  }

  get isRunning(): boolean {
    return this.running
  }

  /** The last lines that it wrote, for an error message. */
  lastLines(count = 6): string {
    return this.log.trim().split('\n').slice(-count).join('\n')
  }

  /** Asks the command to end and waits until it has; ends it the hard way when that takes too long. */
  async stop(): Promise<void> {
    if (!this.running) return
    const ask = () => this.shell.stdin?.write('stop\n')
    const asking = setInterval(ask, STOP_REPEAT_INTERVAL_MS)
    ask()
    if (!(await this.exitsWithin(FAST_SHUTDOWN_TIMEOUT_MS))) this.signalGroup('SIGQUIT')
    if (!(await this.exitsWithin(IMMEDIATE_SHUTDOWN_TIMEOUT_MS))) this.signalGroup('SIGKILL')
    await this.exited
    clearInterval(asking)
    this.shell.stdin?.destroy()
  }

  private async exitsWithin(ms: number): Promise<boolean> {
    const timer = new AbortController()
    const ended = await Promise.race([
      this.exited.then(() => true),
      sleep(ms, false, { signal: timer.signal }).catch(() => false),
    ])
    timer.abort()
    return ended
  }

  private signalGroup(signal: NodeJS.Signals): void {
    try {
      if (this.shell.pid) process.kill(-this.shell.pid, signal)
    } catch {
      // It has just ended.
    }
  }
}
