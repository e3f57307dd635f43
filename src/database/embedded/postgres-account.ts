import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { readdir, readFile, stat } from 'node:fs/promises'
import { dirname } from 'node:path'
import { promisify } from 'node:util'
import { ConfigError } from '../../config/config.ts'

/** An unprivileged account that runs Postgres when we are root: Postgres refuses to run as root. */
export interface SystemAccount {
  readonly name: string
  readonly uid: number
  readonly gid: number
}

/** "Unused" in systemd's table of uids: neither people nor services nor containers are given one of these. */
const FIRST_UID = 60_706
const UID_COUNT = 478
/** macOS: there initdb and the server run under one of its own accounts. */
const MACOS_ACCOUNTS = ['_postgres', 'daemon']
const ACCOUNT_ADVICE =
  'Start Shipcast as an ordinary user, or set DATABASE_URL=postgres://user:password@host/database.'

const runCommand = promisify(execFile)

/** Whether this process is root and so needs another account for Postgres. */
export function isRoot(): boolean {
  return process.getuid?.() === 0
}

/** Whether this is, or once was, what `serverAccount` gives. */
export function isDedicatedUid(uid: number): boolean {
  return process.platform !== 'linux' || (uid >= FIRST_UID && uid < FIRST_UID + UID_COUNT)
}

/**
 * The account for the server of this folder alone. On Linux it is a uid that no account of the machine has, so that no
 * other program runs under it, not even the machine's own Postgres.
 */
export async function serverAccount(dataDir: string): Promise<SystemAccount> {
  if (process.platform !== 'linux') return namedAccount()
  const first = createHash('sha256').update(dataDir).digest().readUInt32BE() % UID_COUNT
  for (let i = 0; i < UID_COUNT; i++) {
    const uid = FIRST_UID + ((first + i) % UID_COUNT)
    if ((await readId(String(uid), '-u')) === undefined) return { name: `uid ${uid}`, uid, gid: uid }
  }
  throw new ConfigError(
    `Postgres does not run as root, and all uids from ${FIRST_UID} on have an account. ${ACCOUNT_ADVICE}`,
  )
}

/**
 * The account for initdb, which refuses a uid without a name. On Linux what it has made is given to `serverAccount`; it
 * is one under which nothing runs at the moment, where there is one.
 */
export async function initdbAccount(): Promise<SystemAccount> {
  if (process.platform !== 'linux') return namedAccount()
  const accounts = (await readFile('/etc/passwd', 'utf8')).split('\n').flatMap((line): SystemAccount[] => {
    const [name = '', , uid, gid] = line.split(':')
    const isUsable = Number(uid) > 0 && Number(gid) >= 0 && name !== 'nobody' && uid !== '65534'
    return isUsable ? [{ name, uid: Number(uid), gid: Number(gid) }] : []
  })
  const busy = await uidsInUse()
  const account = accounts.find(({ uid }) => !busy.has(uid)) ?? accounts[0]
  if (account) return account
  throw new ConfigError(
    `Postgres does not run as root, and this machine has no other account but nobody, which many programs share. Add one, for example: useradd --system shipcast. ${ACCOUNT_ADVICE.replace('Start', 'Or start')}`,
  )
}

/**
 * Gives a folder with all that is in it to an account. Not done here, one path after the other: the present owner could
 * put a link in the way meanwhile; `chown` walks by open folders.
 */
export async function changeOwner({ uid, gid }: SystemAccount, folder: string): Promise<void> {
  await runCommand('chown', ['-R', '-h', '-P', `${uid}:${gid}`, folder]).catch((error) => {
    throw new ConfigError(
      `${folder} cannot be given to uid ${uid}, which would run Postgres. ${ACCOUNT_ADVICE}`,
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
export async function canAccess(path: string, account: SystemAccount): Promise<boolean> {
  const { uid, gid, mode } = await stat(path)
  const executeBit = uid === account.uid ? 0o100 : gid === account.gid ? 0o010 : 0o001
  if (!(mode & executeBit)) return false
  return dirname(path) === path || canAccess(dirname(path), account)
}

async function namedAccount(): Promise<SystemAccount> {
  for (const name of MACOS_ACCOUNTS) {
    const [uid, gid] = await Promise.all([readId(name, '-u'), readId(name, '-g')])
    if (uid !== undefined && uid > 0 && gid !== undefined && gid >= 0) return { name, uid, gid }
  }
  throw new ConfigError(
    `Postgres does not run as root, and this machine has none of the accounts ${MACOS_ACCOUNTS.join(', ')}. ${ACCOUNT_ADVICE}`,
  )
}

async function readId(name: string, which: '-u' | '-g'): Promise<number | undefined> {
  try {
    const { stdout } = await runCommand('id', [which, name])
    return Number(stdout)
  } catch {
    return undefined
  }
}

async function uidsInUse(): Promise<Set<number>> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name))
  const uids = pids.map(async (pid) => (await stat(`/proc/${pid}`).catch(() => undefined))?.uid ?? -1)
  return new Set(await Promise.all(uids))
}
