import { execFile } from 'node:child_process'
import { stat } from 'node:fs/promises'
import { dirname } from 'node:path'
import { promisify } from 'node:util'

/** An unprivileged account that runs Postgres when we are root: Postgres refuses to run as root. */
export interface Account {
  readonly name: string
  readonly uid: number
  readonly gid: number
}

const CANDIDATES = ['postgres', '_postgres', 'nobody', 'daemon']

/** Whether this process is root and so needs another account for Postgres. */
export function isRoot(): boolean {
  return process.getuid?.() === 0
}

/** The first of the usual unprivileged accounts that this machine has. */
export async function findAccount(): Promise<Account> {
  for (const name of CANDIDATES) {
    const [uid, gid] = await Promise.all([idOf(name, '-u'), idOf(name, '-g')])
    if (uid !== undefined && uid > 0 && gid !== undefined && gid >= 0) return { name, uid, gid }
  }
  throw new Error(
    `Postgres does not run as root, and this machine has none of the accounts ${CANDIDATES.join(', ')}. ` +
      'Start Shipcast as an ordinary user, or set DATABASE_URL=postgres://user:password@host/database.',
  )
}

/**
 * Whether the account may pass every folder on the way and enter (or run) the path itself. Looks at modes,
 * not at ACLs.
 */
export async function canReach(path: string, account: Account): Promise<boolean> {
  const { uid, gid, mode } = await stat(path)
  const executeBit = uid === account.uid ? 0o100 : gid === account.gid ? 0o010 : 0o001
  if (!(mode & executeBit)) return false
  return dirname(path) === path || canReach(dirname(path), account)
}

async function idOf(name: string, which: '-u' | '-g'): Promise<number | undefined> {
  try {
    const { stdout } = await promisify(execFile)('id', [which, name])
    return Number(stdout)
  } catch {
    return undefined
  }
}
