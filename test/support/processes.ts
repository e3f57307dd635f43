import { execFile } from 'node:child_process'
import { readdir, readFile, readlink } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'

/**
 * The pids of the Postgres processes on a folder: those whose command contains it, and on Linux also those
 * whose working folder it is, which is true for every process of a Postgres.
 */
export async function postgresProcesses(folder: string): Promise<number[]> {
  const processes = process.platform === 'linux' ? await listFromProc() : await listFromPs()
  return processes
    .filter(({ workingFolder, command }) => {
      const isInside = workingFolder === folder || workingFolder.startsWith(`${folder}/`)
      return isInside || (/postgres|initdb/.test(command) && command.includes(folder))
    })
    .map(({ pid }) => pid)
}

/** Sends a signal to every process of the Postgres on a folder. */
export async function signalPostgres(folder: string, name: NodeJS.Signals): Promise<void> {
  for (const pid of await postgresProcesses(folder)) {
    try {
      process.kill(pid, name)
    } catch {
      // It has just ended.
    }
  }
}

/** Less than Jest's timeout, so that a failed wait can report what it waited for. */
export const MAX_WAIT_MS = 60_000

/** Checks every 20 ms until the condition holds. */
export async function waitUntil(
  condition: () => boolean | Promise<boolean>,
  what: string | (() => string),
  timeoutMs = 15_000,
): Promise<void> {
  const deadline = performance.now() + timeoutMs
  while (!(await condition())) {
    if (performance.now() > deadline) throw timeoutError(what, timeoutMs)
    await sleep(20)
  }
}

/** Settles like the promise, or rejects with an error that says what did not happen in time. */
export async function withTimeout<T>(
  promise: Promise<T>,
  what: string | (() => string),
  timeoutMs = MAX_WAIT_MS,
): Promise<T> {
  const { promise: late, reject } = Promise.withResolvers<never>()
  const timer = setTimeout(() => reject(timeoutError(what, timeoutMs)), timeoutMs)
  try {
    return await Promise.race([promise, late])
  } finally {
    clearTimeout(timer)
  }
}

function timeoutError(what: string | (() => string), timeoutMs: number): Error {
  return new Error(`Not within ${timeoutMs} ms: ${typeof what === 'string' ? what : what()}`)
}

interface RunningProcess {
  pid: number
  workingFolder: string
  command: string
}

/** Zombies have neither a working folder nor a command there. */
async function listFromProc(): Promise<RunningProcess[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name))
  return Promise.all(
    pids.map(async (pid) => ({
      pid: Number(pid),
      workingFolder: await readlink(`/proc/${pid}/cwd`).catch(() => ''),
      command: await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => ''),
    })),
  )
}

async function listFromPs(): Promise<RunningProcess[]> {
  const { stdout } = await promisify(execFile)('ps', ['-eo', 'pid=,args='])
  return stdout
    .split('\n')
    .map((line) => ({ pid: Number.parseInt(line, 10), workingFolder: '', command: line }))
}
