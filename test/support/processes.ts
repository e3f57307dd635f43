import { execFile } from 'node:child_process'
import { readdir, readlink, realpath } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'

/**
 * The pids of the Postgres processes on a folder: those that name it, and on Linux those that work inside it.
 */
export async function postgresProcesses(folder: string): Promise<number[]> {
  const { stdout } = await promisify(execFile)('ps', ['-eo', 'pid=,stat=,args='])
  const naming = stdout
    .split('\n')
    .filter(
      (line) => line.includes(folder) && /postgres|initdb/.test(line) && !line.includes('database-program'),
    )
    .filter((line) => line.trim().split(/\s+/)[1]?.[0] !== 'Z')
    .map((line) => Number.parseInt(line, 10))
  return [...new Set([...naming, ...(await workingInside(folder))])]
}

/** Looks every 10 ms until the condition holds. */
export async function waitUntil(
  condition: () => boolean | Promise<boolean>,
  what: string,
  timeoutMs = 15_000,
): Promise<void> {
  const deadline = performance.now() + timeoutMs
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(`Not within ${timeoutMs} ms: ${what}`)
    await sleep(10)
  }
}

async function workingInside(folder: string): Promise<number[]> {
  if (process.platform !== 'linux') return []
  const real = await realpath(folder).catch(() => folder)
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name))
  const inside = await Promise.all(
    pids.map(async (pid) => {
      const workingFolder = await readlink(`/proc/${pid}/cwd`).catch(() => '')
      return workingFolder === real || workingFolder.startsWith(`${real}/`)
    }),
  )
  return pids.filter((_, index) => inside[index]).map(Number)
}
