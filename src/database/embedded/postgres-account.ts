import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { readdir, readFile, stat } from 'node:fs/promises'
import { dirname } from 'node:path'
import { promisify } from 'node:util'
import { ConfigError } from '../../config/config.ts'

/** An unprivileged account that runs Postgres when we are root: Postgres refuses to run as root. */
export interface Account {
  readonly name: string
  readonly uid: number
  readonly gid: number
}

/** "Unused" in systemd's table of uids: neither people nor services nor containers are given one of these. */
const FIRST_UID = 60_706
const UIDS = 478
/** macOS: there initdb and the server run under one of its own accounts. */
const MACOS_ACCOUNTS = ['_postgres', 'daemon']
const NO_ACCOUNT =
  'Start Shipcast as an ordinary user, or set DATABASE_URL=postgres://user:password@host/database.'

const run = promisify(execFile)

/** Whether this process is root and so needs another account for Postgres. */
export function isRoot(): boolean {
  return process.getuid?.() === 0
}

/** Whether this is, or once was, what `serverAccount` gives. */
export function isDedicated(uid: number): boolean {
  return process.platform !== 'linux' || (uid >= FIRST_UID && uid < FIRST_UID + UIDS)
}

/**
 * The account for the server of this folder alone. On Linux it is a uid that no account of the machine has, so that no
 * other program runs under it, not even the machine's own Postgres.
 */
export async function serverAccount(dataDir: string): Promise<Account> {
  if (process.platform !== 'linux') return namedAccount()
  const first = createHash('sha256').update(dataDir).digest().readUInt32BE() % UIDS
  for (let i = 0; i < UIDS; i++) {
    const uid = FIRST_UID + ((first + i) % UIDS)
    if ((await idOf(String(uid), '-u')) === undefined) return { name: `uid ${uid}`, uid, gid: uid }
  }
  throw new ConfigError(
    `Postgres does not run as root, and all uids from ${FIRST_UID} on have an account. ${NO_ACCOUNT}`,
  )
}

/**
 * The account for initdb, which refuses a uid without a name. On Linux what it has made is given to `serverAccount`; it
 * is one under which nothing runs at the moment, where there is one.
 */
export async function initdbAccount(): Promise<Account> {
  if (process.platform !== 'linux') return namedAccount()
  const accounts = (await readFile('/etc/passwd', 'utf8')).split('\n').flatMap((line): Account[] => {
    const [name = '', , uid, gid] = line.split(':')
    const isUsable = Number(uid) > 0 && Number(gid) >= 0 && name !== 'nobody' && uid !== '65534'
    return isUsable ? [{ name, uid: Number(uid), gid: Number(gid) }] : []
  })
  const busy = await uidsOfProcesses()
  const account = accounts.find(({ uid }) => !busy.has(uid)) ?? accounts[0]
  if (account) return account
  throw new ConfigError(
    `Postgres does not run as root, and this machine has no other account but nobody, which many programs share. Add one, for example: useradd --system shipcast. ${NO_ACCOUNT.replace('Start', 'Or start')}`,
  )
}

/**
 * Gives a folder with all that is in it to an account. Not done here, one path after the other: the present owner could
 * put a link in the way meanwhile; `chown` walks by open folders.
 */
export async function giveTo({ uid, gid }: Account, folder: string): Promise<void> {
  await run('chown', ['-R', '-h', '-P', `${uid}:${gid}`, folder]).catch((error) => {
    throw new ConfigError(
      `${folder} cannot be given to uid ${uid}, which would run Postgres. ${NO_ACCOUNT}`,
      {
        cause: error,
      },
    )
  })
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

async function namedAccount(): Promise<Account> {
  for (const name of MACOS_ACCOUNTS) {
    const [uid, gid] = await Promise.all([idOf(name, '-u'), idOf(name, '-g')])
    if (uid !== undefined && uid > 0 && gid !== undefined && gid >= 0) return { name, uid, gid }
  }
  throw new ConfigError(
    `Postgres does not run as root, and this machine has none of the accounts ${MACOS_ACCOUNTS.join(', ')}. ${NO_ACCOUNT}`,
  )
}

async function idOf(name: string, which: '-u' | '-g'): Promise<number | undefined> {
  try {
    const { stdout } = await run('id', [which, name])
    return Number(stdout)
  } catch {
    return undefined
  }
}

async function uidsOfProcesses(): Promise<Set<number>> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name))
  const uids = pids.map(async (pid) => (await stat(`/proc/${pid}`).catch(() => undefined))?.uid ?? -1)
  return new Set(await Promise.all(uids))
}
