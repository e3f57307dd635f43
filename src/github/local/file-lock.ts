import { readlink, rename, rm, symlink } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { ForgeError } from '../forge-error.ts'
import { isOlderThan } from './durable-files.ts'
import { hasCode } from './storage-errors.ts'
import { newWriterTag, writerState } from './writer-tag.ts'

/*
 * A lock is a name that is there or not, as git has it (`<ref>.lock`, created only if absent): git commands respect
 * ours, and we respect theirs. Ours is a symbolic link to the mark of its holder: that is there at once and whole,
 * also after a power cut, and needs no flush.
 *
 *   free ──create──> held ──remove──> free
 *                     │ its holder died
 *                     └──replace by the one who claims it──> held
 *
 * Only one may take over from a dead holder, or a late second would take over from the first. So that right is a
 * lock too: `claim.<mark of the dead holder>`. Who has it looks again; while the dead holder's mark is still in the
 * lock, nobody else may touch it. Its own holder may die as well, and is then taken over from in the same way.
 */

/** Locks are held for milliseconds. After this time a holder of whom nothing can be known is taken for dead. */
const UNKNOWN_ABANDONED_MS = 30_000
const PATIENCE_MS = 5_000
const LONGEST_PAUSE_MS = 50

/**
 * Runs the action while holding the lock. Rejects with a `TRANSIENT` GitHubError when others hold it for long.
 * It does NOT protect from a holder on another machine that sleeps in the middle of it: the action itself has to be
 * harmless then.
 */
export async function withFileLock<T>(
  path: string,
  temporaryFolder: string,
  signal: AbortSignal,
  action: () => Promise<T>,
): Promise<T> {
  const mark = await newWriterTag()
  const deadline = performance.now() + PATIENCE_MS
  for (let pauseMs = 1; !(await acquire(path, mark, temporaryFolder)); pauseMs *= 2) {
    if (performance.now() > deadline) throw held(path)
    await setTimeout(Math.min(pauseMs, LONGEST_PAUSE_MS), undefined, { signal }).catch(() => {
      signal.throwIfAborted()
    })
  }
  try {
    return await action()
  } finally {
    if ((await holderOf(path)) === mark) await rm(path, { force: true })
  }
}

/** False when somebody who is alive holds it. */
async function acquire(path: string, mark: string, temporaryFolder: string): Promise<boolean> {
  for (;;) {
    if (await create(path, mark)) return true
    const holder = await holderOf(path)
    if (holder === null) continue
    if (!(await isDead(holder, path))) return false
    const claim = join(temporaryFolder, `claim.${holder}`)
    if (!(await acquire(claim, mark, temporaryFolder))) return false
    try {
      if ((await holderOf(path)) !== holder) continue
      const replacement = join(temporaryFolder, mark)
      await symlink(mark, replacement)
      await rename(replacement, path)
      return true
    } finally {
      await rm(claim, { force: true })
    }
  }
}

async function create(path: string, mark: string): Promise<boolean> {
  try {
    await symlink(mark, path)
    return true
  } catch (error) {
    if (hasCode(error, 'EEXIST')) return false
    throw error
  }
}

/** The mark in the lock, or the empty string when it is not one of ours; null when it is free. */
async function holderOf(path: string): Promise<string | null> {
  try {
    return await readlink(path)
  } catch (error) {
    if (hasCode(error, 'ENOENT')) return null
    if (hasCode(error, 'EINVAL')) return '' // a file: a git command's
    throw error
  }
}

async function isDead(holder: string, path: string): Promise<boolean> {
  if (holder === '') return false
  const writer = await writerState(holder)
  return writer === 'ended' || (writer === 'unknown' && (await isOlderThan(path, UNKNOWN_ABANDONED_MS)))
}

function held(path: string): ForgeError {
  return new ForgeError(
    'TRANSIENT',
    `Something else is writing to the repository: ${path} is there. If no git command runs, delete that file.`,
  )
}
