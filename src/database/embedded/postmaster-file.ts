import { execFile } from 'node:child_process'
import { readFile, readlink, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { isProcessAlive } from '../../runtime/process-alive.ts'

/** Postgres fills the file at once; a file that stays empty longer was left by a crash. */
const EMPTY_FILE_GRACE_MS = 2_000

/**
 * The contents of `postmaster.pid` in the data folder of a running Postgres (PostgreSQL source, `pidfile.h`).
 */
export interface Postmaster {
  readonly pid: number
  readonly port: number
  readonly socketDir: string
  readonly status: 'starting' | 'stopping' | 'ready' | 'standby' | ''
  /** The file's text, to recognize it again. */
  readonly text: string
}

/** The server that uses this data folder, or used it when it died. */
export async function readPostmaster(pgData: string): Promise<Postmaster | undefined> {
  const text = await readFile(pidFilePath(pgData), 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined
    throw error
  })
  if (text === undefined) return undefined
  const lines = text.split('\n').map((line) => line.trim())
  const status = lines[7]
  return {
    pid: Number(lines[0]),
    port: Number(lines[3]),
    socketDir: lines[4] ?? '',
    status:
      status === 'ready' || status === 'starting' || status === 'stopping' || status === 'standby'
        ? status
        : '',
    text,
  }
}

/** Whether the server is alive, as opposed to another process that has its pid now. True if in doubt. */
export async function isPostmasterAlive(postmaster: Postmaster, pgData: string): Promise<boolean> {
  if (!isProcessAlive(postmaster.pid)) return false
  if (process.platform === 'linux') {
    // The working directory of a Postgres is its data folder. Root without CAP_SYS_PTRACE (as in Docker)
    // cannot read it; then only the name is checked.
    const workingFolder = await readlink(`/proc/${postmaster.pid}/cwd`).catch(() => undefined)
    if (workingFolder !== undefined) return workingFolder === pgData
    const command = await readFile(`/proc/${postmaster.pid}/cmdline`, 'utf8').catch(() => '')
    return command.includes('postgres')
  }
  const { stdout } = await promisify(execFile)('ps', ['-o', 'args=', '-p', String(postmaster.pid)]).catch(
    () => ({
      stdout: '',
    }),
  )
  return stdout.includes('postgres')
}

/**
 * Removes the file of a dead server in the cases in which Postgres would not: another process has its pid
 * now, or the file stayed empty (a power failure). Postgres itself handles a dead pid, and then checks for
 * remaining processes.
 */
export async function removeIfStale(pgData: string, postmaster: Postmaster): Promise<void> {
  if (postmaster.text === '') await sleep(EMPTY_FILE_GRACE_MS)
  else if (!isProcessAlive(postmaster.pid)) return
  const now = await readPostmaster(pgData)
  if (now?.text === postmaster.text) await rm(pidFilePath(pgData), { force: true })
}

function pidFilePath(pgData: string): string {
  return join(pgData, 'postmaster.pid')
}
