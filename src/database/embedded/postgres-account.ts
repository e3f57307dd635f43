import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { readdir, readFile, stat } from 'node:fs/promises'
import { dirname } from 'node:path'
import { promisify } from 'node:util'
import { ConfigError } from '../../config/config.ts'

/*
 * Running as root. Postgres refuses to run as root, so when this process is root, another account runs it:
 *
 * - The server runs as a uid without an account, dedicated to this data folder (`serverAccount`), so that no
 *   other program, including the machine's own Postgres, can read its files or use its socket.
 * - initdb refuses a uid without an account, so it runs as any existing account (`initdbAccount`); its files
 *   then change owner before anything secret is in them.
 * - On macOS both run as one of the system's service accounts.
 * - An account that cannot enter the binaries or DATA_DIR uses a copy, or a data folder, in
 *   /var/lib/shipcast.
 * - The password file stays beside the data folder, where the server's account cannot read it.
 */

/** An account that runs Postgres instead of root. */
export interface SystemAccount {
  readonly name: string
  readonly uid: number
  readonly gid: number
}

/** "Unused" in systemd's table of uids: never assigned to people, services or containers. */
const FIRST_UID = 60_706
const UID_COUNT = 478
const MACOS_ACCOUNTS = ['_postgres', 'daemon']
const ACCOUNT_ADVICE =
  'Start Shipcast as an ordinary user, or set DATABASE_URL=postgres://user:password@host/database.'

const runCommand = promisify(execFile)

export function isRoot(): boolean {
  return process.getuid?.() === 0
}

/** The account for the server of this data folder: on Linux, a uid without an account. */
export async function serverAccount(dataDir: string): Promise<SystemAccount> {
  if (process.platform !== 'linux') return namedAccount()
  const first = createHash('sha256').update(dataDir).digest().readUInt32BE() % UID_COUNT
  for (let i = 0; i < UID_COUNT; i++) {
    const uid = FIRST_UID + ((first + i) % UID_COUNT)
    if ((await readId(String(uid), '-u')) === undefined) return { name: `uid ${uid}`, uid, gid: uid }
  }
  throw new ConfigError(
    `Postgres does not run as root, and all ${UID_COUNT} uids from ${FIRST_UID} on have an account. ${ACCOUNT_ADVICE}`,
  )
}

/** The account for initdb: on Linux, preferably one that runs no process now. */
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
    `Postgres does not run as root, and this machine has no other account except nobody, which many programs share. Add one, for example: useradd --system shipcast. ${ACCOUNT_ADVICE.replace('Start', 'Or start')}`,
  )
}

/**
 * Changes the owner of a folder and its contents. `chown` traverses open folders: going by paths, the present
 * owner could replace a folder by a link in between.
 */
export async function changeOwner({ uid, gid }: SystemAccount, folder: string): Promise<void> {
  await runCommand('chown', ['-R', '-h', '-P', `${uid}:${gid}`, folder]).catch((error) => {
    throw new ConfigError(
      `Cannot change the owner of ${folder} to uid ${uid}, under which Postgres would run. ${ACCOUNT_ADVICE}`,
      { cause: error },
    )
  })
}

/**
 * Whether the account can enter (or execute) the path and all folders above it, by their modes; ignores ACLs.
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
