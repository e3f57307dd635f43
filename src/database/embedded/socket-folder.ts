import { chown, lstat, mkdtemp, rm, rmdir } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { canAccess, type SystemAccount } from './postgres-account.ts'

// sockaddr_un: 104 bytes with the terminating zero on macOS, 108 on Linux.
const MAX_PATH_BYTES = 103
const FOLDER_PREFIX = 'shipcast-'

/** Creates a private folder for the server's socket. Other processes find it through `postmaster.pid`. */
export async function createSocketFolder(
  dataDir: string,
  port: number,
  account: SystemAccount | undefined,
): Promise<string> {
  const tried: string[] = []
  for (const parent of new Set([tmpdir(), '/tmp', dataDir])) {
    const longest = join(parent, `${FOLDER_PREFIX}XXXXXX`, `.s.PGSQL.${port}`)
    if (Buffer.byteLength(longest) > MAX_PATH_BYTES) {
      tried.push(`${parent}: the path is too long`)
      continue
    }
    try {
      if (account && !(await canAccess(parent, account))) throw new Error(`${account.name} cannot enter it`)
      const folder = await mkdtemp(join(parent, FOLDER_PREFIX))
      if (account) await chown(folder, account.uid, account.gid)
      return folder
    } catch (error) {
      tried.push(`${parent}: ${error instanceof Error ? error.message : error}`)
    }
  }
  throw new Error(
    `Could not create a folder for the socket of the embedded Postgres: ${tried.join('; ')}. Set TMPDIR or DATABASE_URL.`,
  )
}

/** Refuses a folder in which another account could have created a socket. */
export async function assertPrivate(socketDir: string, ownerUid: number): Promise<void> {
  const { uid, mode } = await lstat(socketDir)
  // lstat's mode includes the type: a symlink is not a folder.
  if (uid !== ownerUid || (mode & 0o170077) !== 0o040000) {
    throw new Error(
      `${socketDir} is not a private folder of uid ${ownerUid}; Shipcast does not connect there.`,
    )
  }
}

/** Removes the folder of a server that was killed together with its supervisor. */
export async function removeSocketFolder(socketDir: string, port: number, ownerUid: number): Promise<void> {
  if (!basename(socketDir).startsWith(FOLDER_PREFIX)) return
  try {
    await assertPrivate(socketDir, ownerUid)
    for (const name of [`.s.PGSQL.${port}`, `.s.PGSQL.${port}.lock`])
      await rm(join(socketDir, name), { force: true })
    await rmdir(socketDir)
  } catch {
    // Already removed, or not ours: an empty folder in the temporary folder does no harm.
  }
}
