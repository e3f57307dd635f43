import { execFile } from 'node:child_process'
import { readFile, readlink, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'

/** Postgres fills its file at once; one that stays empty so long was left by a crash. */
const EMPTY_FILE_GRACE_MS = 2_000

/**
 * What a running Postgres writes into `postmaster.pid` of its data folder (PostgreSQL source, `pidfile.h`).
 */
export interface Postmaster {
  readonly pid: number
  readonly port: number
  readonly socketDir: string
  readonly status: 'starting' | 'stopping' | 'ready' | 'standby' | ''
  /** The file's text, to recognize it again. */
  readonly text: string
}

/** The server that holds this data folder or held it when it died; undefined when none does. */
export async function readPostmaster(cluster: string): Promise<Postmaster | undefined> {
  const text = await readFile(pidFilePath(cluster), 'utf8').catch((error: NodeJS.ErrnoException) => {
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

/**
 * Whether that server lives, as opposed to another process that was given its pid later. In doubt it lives.
 */
export async function isPostmasterAlive(postmaster: Postmaster, cluster: string): Promise<boolean> {
  if (!isProcessAlive(postmaster.pid)) return false
  if (process.platform === 'linux') {
    // A Postgres works inside its data folder. Root without CAP_SYS_PTRACE (as in Docker) may not see that;
    // then its name must do.
    const workingFolder = await readlink(`/proc/${postmaster.pid}/cwd`).catch(() => undefined)
    if (workingFolder !== undefined) return workingFolder === cluster
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
 * Removes the file of a dead server where Postgres itself would not: when another process has its pid now, or
 * when the file stayed empty (a power cut). A dead pid is left to Postgres, which also looks for survivors of
 * that server.
 */
export async function removeIfStale(cluster: string, postmaster: Postmaster): Promise<void> {
  if (postmaster.text === '') await sleep(EMPTY_FILE_GRACE_MS)
  else if (!isProcessAlive(postmaster.pid)) return
  const now = await readPostmaster(cluster)
  if (now?.text === postmaster.text) await rm(pidFilePath(cluster), { force: true })
}

/** Whether a process has this pid. */
export function isProcessAlive(pid: number): boolean {
  if (!Number.isInteger(pid) || pid <= 0) return false
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return error instanceof Error && 'code' in error && error.code === 'EPERM'
  }
}

function pidFilePath(cluster: string): string {
  return join(cluster, 'postmaster.pid')
}
