import {
  chown,
  lstat,
  mkdir,
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
import { ensureFolder, syncFolder } from '../../runtime/folders.ts'
import { isProcessAlive } from '../../runtime/process-alive.ts'
import { canAccess, changeOwner, type SystemAccount } from './postgres-account.ts'
import { SYSTEM_FOLDER } from './postgres-binaries.ts'
import { SupervisedProcess } from './supervised-process.ts'

// Includes the major version: another one cannot read these files.
const PGDATA_NAME = 'postgres-18'
/** A file beside a data folder in the system folder: contains the path of the link to it. */
const LINK_ORIGIN_SUFFIX = '.link'
const LEFTOVER_MAX_AGE_MS = 3_600_000

interface NewPgData {
  readonly dataDir: string
  /** Runs the server and owns its files. */
  readonly account: SystemAccount | undefined
  /** Runs initdb. */
  readonly initdbAccount: SystemAccount | undefined
  readonly binaries: string
  readonly superuser: string
  readonly signal: AbortSignal
  readonly log: (line: string) => void
}

/**
 * The real path of `<dataDir>/postgres-18`, or undefined if it does not exist. If the account that runs
 * Postgres for root cannot reach dataDir, it is a symlink into /var/lib/shipcast.
 */
export async function findPgData(dataDir: string): Promise<string | undefined> {
  const name = join(dataDir, PGDATA_NAME)
  try {
    const pgData = await realpath(name)
    await stat(join(pgData, 'PG_VERSION'))
    await removeLeftovers(dirname(pgData))
    return pgData
  } catch (error) {
    if (await isAbsent(name)) return undefined
    throw new ConfigError(
      `${name} is not a Postgres data folder that this account can read. Start as its owner, choose another DATA_DIR, or move that folder away.`,
      { cause: error },
    )
  }
}

/** Creates the folder under a temporary name and renames it when complete: a crash leaves no partial one. */
export async function createPgData(options: NewPgData): Promise<string> {
  const { dataDir, account, initdbAccount, signal } = options
  assertUidHasName(account)
  await ensureFolder(dataDir).catch((error: NodeJS.ErrnoException) => {
    throw notWritableError(dataDir, error)
  })
  const accounts = [account, initdbAccount].filter((one) => one !== undefined)
  const access = await Promise.all(accounts.map(async (one) => canAccess(await realpath(dataDir), one)))
  const usesSystemFolder = access.includes(false)
  const parent = usesSystemFolder ? SYSTEM_FOLDER : await realpath(dataDir)
  if (usesSystemFolder) await mkdir(SYSTEM_FOLDER, { recursive: true, mode: 0o755 })
  await removeLeftovers(parent)

  const aside = join(parent, `${PGDATA_NAME}.init-${process.pid}-${crypto.randomUUID().slice(0, 8)}`)
  await mkdir(aside, { mode: 0o700 }).catch((error: NodeJS.ErrnoException) => {
    throw notWritableError(parent, error)
  })
  try {
    if (initdbAccount) await changeOwner(initdbAccount, aside)
    await initdb(aside, options)
    if (account) {
      // Locks initdb's account out before the owner of the contents changes.
      await chown(aside, 0, 0)
      await changeOwner(account, aside)
    }
    signal.throwIfAborted()
    const pgData = usesSystemFolder
      ? await publishInSystemFolder(aside, dataDir, options)
      : await publish(aside, dataDir)
    for (const changed of [dirname(pgData), dataDir, dirname(dataDir)]) {
      await syncFolder(changed).catch(() => {}) // Some file systems cannot sync a folder.
    }
    return pgData
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
  // The shell's codes for "cannot execute": the binaries need glibc; Alpine has musl.
  const cannotExecute = code === 126 || code === 127
  throw new Error(
    `${cannotExecute ? 'The embedded Postgres cannot run on this system; set DATABASE_URL instead' : 'initdb failed'}:\n${initdb.lastLines()}`,
  )
}

/** The first process to rename wins; others use its folder. */
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
      `The database is in ${target}, since ${account?.name}, which runs Postgres for root, cannot enter ${dataDir}. To delete it, remove both folders.`,
    )
    const orphans = await findOrphans()
    if (orphans.length > 0) {
      log(
        `Databases whose DATA_DIR was removed or moved: ${orphans.join(', ')}. Remove those that are no longer needed.`,
      )
    }
  } catch (error) {
    await rm(target, { recursive: true, force: true })
    await rm(`${target}${LINK_ORIGIN_SUFFIX}`, { force: true })
    if (!(error instanceof Error && 'code' in error && error.code === 'EEXIST')) throw error
  }
  return requirePgData(dataDir)
}

/** Databases without a link to them. Not removed: DATA_DIR may have been moved, or not be mounted. */
async function findOrphans(): Promise<string[]> {
  const orphans: string[] = []
  for (const name of await readdir(SYSTEM_FOLDER)) {
    if (!name.endsWith(LINK_ORIGIN_SUFFIX)) continue
    const pgData = join(SYSTEM_FOLDER, name.slice(0, -LINK_ORIGIN_SUFFIX.length))
    const link = await readFile(join(SYSTEM_FOLDER, name), 'utf8')
    if ((await readlink(link).catch(() => undefined)) === pgData) continue
    if (await stat(pgData).catch(() => undefined)) orphans.push(`${pgData} (${dirname(link)})`)
  }
  return orphans
}

async function requirePgData(dataDir: string): Promise<string> {
  const pgData = await findPgData(dataDir)
  if (pgData) return pgData
  throw new Error(`${join(dataDir, PGDATA_NAME)} disappeared while it was being created.`)
}

/** Removes the folders of processes that were killed during initdb. */
async function removeLeftovers(folder: string): Promise<void> {
  for (const name of await readdir(folder).catch(() => [])) {
    const pid = /\.init-(\d+)-/.exec(name)?.[1]
    if (pid === undefined) continue
    const path = join(folder, name)
    const ageMs = Date.now() - ((await stat(path).catch(() => undefined))?.mtimeMs ?? 0)
    if (isProcessAlive(Number(pid)) && ageMs < LEFTOVER_MAX_AGE_MS) continue
    // Fails while its initdb is still exiting; the next start tries again.
    await rm(path, { recursive: true, force: true, maxRetries: 3 }).catch(() => {})
  }
}

function assertUidHasName(account: SystemAccount | undefined): void {
  if (account) return
  try {
    userInfo()
  } catch (error) {
    throw new Error(
      `The uid ${process.getuid?.()} has no account on this machine, but initdb needs one. Start under a uid in /etc/passwd, ` +
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
