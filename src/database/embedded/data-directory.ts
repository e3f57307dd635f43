import {
  chown,
  lstat,
  mkdir,
  open,
  readdir,
  readFile,
  readlink,
  realpath,
  rename,
  rm,
  stat,
  symlink,
  writeFile,
} from 'node:fs/promises'
import { userInfo } from 'node:os'
import { dirname, join } from 'node:path'
import { ConfigError } from '../../config/config.ts'
import { ensureFolder } from '../../runtime/folders.ts'
import { canAccess, changeOwner, type SystemAccount } from './postgres-account.ts'
import { SYSTEM_FOLDER } from './postgres-binaries.ts'
import { isProcessAlive } from './postmaster-file.ts'
import { SupervisedProcess } from './supervised-process.ts'

// The major version is in the name: another one cannot read these files.
const PGDATA_NAME = 'postgres-18'
/** Beside a database in the system folder: where the link to it was made. */
const LINK_ORIGIN_SUFFIX = '.link'
const LEFTOVER_MAX_AGE_MS = 3_600_000

export interface NewPgData {
  readonly dataDir: string
  /** That runs the server, and owns its files. */
  readonly account: SystemAccount | undefined
  /** That makes the files. */
  readonly initdbAccount: SystemAccount | undefined
  readonly binaries: string
  readonly superuser: string
  readonly signal: AbortSignal
  readonly log: (line: string) => void
}

/**
 * The real path of `<dataDir>/postgres-18`, or undefined when there is none yet. Where root runs Postgres
 * under another account that cannot reach dataDir, that name is a symlink into /var/lib/shipcast.
 */
export async function findPgData(dataDir: string): Promise<string | undefined> {
  const name = join(dataDir, PGDATA_NAME)
  try {
    const cluster = await realpath(name)
    await stat(join(cluster, 'PG_VERSION'))
    await sweepLeftovers(dirname(cluster))
    return cluster
  } catch (error) {
    if (await isAbsent(name)) return undefined
    throw new ConfigError(
      `${name} is not a Postgres data folder that this account can read. Start as its owner, choose another DATA_DIR, or move it away.`,
      { cause: error },
    )
  }
}

/**
 * Makes the data folder. It gets its name only when it is whole, so that a kill in the middle leaves no half
 * database.
 */
export async function createPgData(options: NewPgData): Promise<string> {
  const { dataDir, account, initdbAccount, signal } = options
  assertUidHasName(account)
  await ensureFolder(dataDir).catch((error: NodeJS.ErrnoException) => {
    throw notWritableError(dataDir, error)
  })
  const accounts = [account, initdbAccount].filter((one) => one !== undefined)
  const reach = await Promise.all(accounts.map(async (one) => canAccess(await realpath(dataDir), one)))
  const elsewhere = reach.includes(false)
  const parent = elsewhere ? SYSTEM_FOLDER : await realpath(dataDir)
  if (elsewhere) await mkdir(SYSTEM_FOLDER, { recursive: true, mode: 0o755 })
  await sweepLeftovers(parent)

  const aside = join(parent, `${PGDATA_NAME}.init-${process.pid}-${crypto.randomUUID().slice(0, 8)}`)
  await mkdir(aside, { mode: 0o700 }).catch((error: NodeJS.ErrnoException) => {
    throw notWritableError(parent, error)
  })
  try {
    if (initdbAccount) await changeOwner(initdbAccount, aside)
    await initdb(aside, options)
    // From here on nobody else enters it.
    if (account) await chown(aside, 0, 0)
    if (account) await changeOwner(account, aside)
    signal.throwIfAborted()
    const cluster = elsewhere
      ? await publishInSystemFolder(aside, dataDir, options)
      : await publish(aside, dataDir)
    await syncFolders(dirname(cluster), dataDir, dirname(dataDir))
    return cluster
  } finally {
    await rm(aside, { recursive: true, force: true, maxRetries: 3 })
  }
}

async function initdb(
  folder: string,
  { initdbAccount, binaries, superuser, signal }: NewPgData,
): Promise<void> {
  const initdb = new SupervisedProcess(
    join(binaries, 'bin', 'initdb'),
    [
      '-D',
      folder,
      '-U',
      superuser,
      '-E',
      'UTF8',
      '--locale=C',
      '--auth-local=trust',
      '--auth-host=reject',
      '--no-instructions',
    ],
    initdbAccount,
  )
  const stop = () => void initdb.stop()
  signal.addEventListener('abort', stop, { once: true })
  const code = await initdb.exited
  signal.removeEventListener('abort', stop)
  signal.throwIfAborted()
  if (code === 0) return
  // The shell's code for "cannot execute": the binaries are for glibc and not for musl (Alpine).
  const foreign = code === 126 || code === 127
  throw new Error(
    `${foreign ? 'The embedded Postgres cannot run on this system; set DATABASE_URL instead' : 'initdb failed'}:\n${initdb.lastLines()}`,
  )
}

/** Whoever renames first wins; the others use the winner's. */
async function publish(aside: string, dataDir: string): Promise<string> {
  await rename(aside, join(dataDir, PGDATA_NAME)).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOTEMPTY' && error.code !== 'EEXIST' && error.code !== 'ENOTDIR') throw error
  })
  return requirePgData(dataDir)
}

async function publishInSystemFolder(
  aside: string,
  dataDir: string,
  { account, log }: NewPgData,
): Promise<string> {
  const target = aside.replace('.init-', '-')
  await rename(aside, target)
  try {
    await writeFile(`${target}${LINK_ORIGIN_SUFFIX}`, join(await realpath(dataDir), PGDATA_NAME), {
      flag: 'wx',
    })
    await symlink(target, join(dataDir, PGDATA_NAME))
    log(
      `The database is in ${target}, since ${account?.name}, which runs Postgres for root, cannot enter ${dataDir}. It stays there when ${dataDir} is removed: remove both.`,
    )
    const orphans = await findOrphans()
    if (orphans.length > 0) {
      log(
        `Databases whose DATA_DIR is gone, or was moved: ${orphans.join(', ')}. Remove those that are no longer needed.`,
      )
    }
  } catch (error) {
    await rm(target, { recursive: true, force: true })
    await rm(`${target}${LINK_ORIGIN_SUFFIX}`, { force: true })
    if (!(error instanceof Error && 'code' in error && error.code === 'EEXIST')) throw error
  }
  return requirePgData(dataDir)
}

/**
 * Not removed by us: the folder may have been moved, or be on a disk that is not mounted, and its database is somebody's
 * data.
 */
async function findOrphans(): Promise<string[]> {
  const orphans: string[] = []
  for (const name of await readdir(SYSTEM_FOLDER)) {
    if (!name.endsWith(LINK_ORIGIN_SUFFIX)) continue
    const cluster = join(SYSTEM_FOLDER, name.slice(0, -LINK_ORIGIN_SUFFIX.length))
    const link = await readFile(join(SYSTEM_FOLDER, name), 'utf8')
    if ((await readlink(link).catch(() => undefined)) === cluster) continue
    if (await stat(cluster).catch(() => undefined)) orphans.push(`${cluster} (${dirname(link)})`)
  }
  return orphans
}

async function requirePgData(dataDir: string): Promise<string> {
  const cluster = await findPgData(dataDir)
  if (cluster) return cluster
  throw new Error(`${join(dataDir, PGDATA_NAME)} vanished while it was being made.`)
}

/** A rename survives a power cut only when the folder that holds the name has been flushed. */
async function syncFolders(...folders: string[]): Promise<void> {
  for (const folder of folders) {
    const handle = await open(folder).catch(() => undefined)
    await handle?.sync().catch(() => {}) // Some filesystems cannot flush a folder.
    await handle?.close()
  }
}

/** Removes what processes that were killed during initdb have left. */
async function sweepLeftovers(folder: string): Promise<void> {
  for (const name of await readdir(folder).catch(() => [])) {
    const pid = /\.init-(\d+)-/.exec(name)?.[1]
    if (pid === undefined) continue
    const path = join(folder, name)
    const ageMs = Date.now() - ((await stat(path).catch(() => undefined))?.mtimeMs ?? 0)
    if (isProcessAlive(Number(pid)) && ageMs < LEFTOVER_MAX_AGE_MS) continue
    // When its initdb is still ending, the next start sweeps again.
    await rm(path, { recursive: true, force: true, maxRetries: 3 }).catch(() => {})
  }
}

function assertUidHasName(account: SystemAccount | undefined): void {
  if (account) return
  try {
    userInfo()
  } catch (error) {
    throw new Error(
      `The uid ${process.getuid?.()} has no account on this machine, and initdb needs one. Start under a uid that is in /etc/passwd, ` +
        'or set DATABASE_URL=postgres://user:password@host/database.',
      { cause: error },
    )
  }
}

function notWritableError(folder: string, error: NodeJS.ErrnoException): ConfigError {
  return new ConfigError(
    `The embedded Postgres cannot write to ${folder} (${error.code}). Choose another folder with DATA_DIR, or set DATABASE_URL.`,
    { cause: error },
  )
}

async function isAbsent(path: string): Promise<boolean> {
  return lstat(path).then(
    () => false,
    (error: NodeJS.ErrnoException) => error.code === 'ENOENT',
  )
}
