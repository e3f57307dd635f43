import { type FieldError, quote } from '../../errors.ts'
import { NOT_WELL_FORMED } from '../../github/repository-names.ts'
import type { CooperativeScheduler } from '../../runtime/cooperative-scheduler.ts'
import { gitFileOf } from './git-file-rules.ts'

const MAX_PATH_BYTES = 4096
const MAX_SEGMENT_BYTES = 255
const MAX_DEPTH = 256
/** Each folder becomes a tree object: a few deep paths must not create millions. */
const MAX_FOLDERS = 100_000

/** Most paths. Apart from lengths, no rule below applies to them. */
const PLAIN_PATH = /^(?:[A-Za-z0-9_-][A-Za-z0-9_.-]*\/)*[A-Za-z0-9_-][A-Za-z0-9_.-]*$/

/**
 * Why git, or a system that clones, would reject this path; each reason completes "<path> …". Follows git's
 * verify_path (read-cache.c) and fsck_tree (fsck.c) with core.protectHFS and core.protectNTFS on.
 */
export function validatePath(path: string): string[] {
  if (path.length <= MAX_SEGMENT_BYTES && PLAIN_PATH.test(path)) return []
  if (path === '') return ['must not be empty']
  if (Buffer.byteLength(path) > MAX_PATH_BYTES) {
    return [`must be at most ${MAX_PATH_BYTES} bytes: ${quote(path)}`]
  }
  const segments = path.split('/')
  const named = segments.filter((segment) => segment !== '')
  const reasons: string[] = []
  if (!path.isWellFormed()) reasons.push(NOT_WELL_FORMED)
  if (/\p{Cc}/u.test(path)) reasons.push('must not contain control characters')
  if (/^(?:[/\\]|[A-Za-z]:[/\\])/.test(path)) {
    reasons.push('must be relative, not beginning with "/" or a drive')
  }
  if (/.\/$/s.test(path)) reasons.push('must name a file, not ending in "/"')
  if (/[^/]\/\/+[^/]/.test(path)) reasons.push('must not have empty segments ("//")')
  if (named.some(hasDotSegment)) reasons.push('must not have "." or ".." segments')
  if (named.some(looksLikeDotGit)) {
    reasons.push('must not have a ".git" segment, or one that some system treats as ".git"')
  }
  if (segments.slice(0, -1).some(looksLikeGitFile)) {
    reasons.push('must not have a folder that git treats as its file .gitmodules or .gitattributes')
  }
  if (named.some((segment) => Buffer.byteLength(segment) > MAX_SEGMENT_BYTES)) {
    reasons.push(`must have at most ${MAX_SEGMENT_BYTES} bytes in each segment`)
  }
  if (segments.length > MAX_DEPTH) reasons.push(`must have at most ${MAX_DEPTH} segments`)
  return reasons.map((reason) => `${reason}: ${quote(path)}`)
}

/** Windows treats a backslash as a slash. */
function hasDotSegment(segment: string): boolean {
  return segment === '.' || segment.split('\\').includes('..')
}

/** Code points that HFS+ ignores in names (git's utf8.c, next_hfs_char). */
const HFS_IGNORED = /[\u200c-\u200f\u202a-\u202e\u206a-\u206f\ufeff]/g
/** NTFS: the short name, trailing dots and spaces, an alternate stream (git's path.c, is_ntfs_dotgit). */
const DOT_GIT = /^(?:\.git|git~1)[. ]*(?::|$)/i

function looksLikeDotGit(segment: string): boolean {
  return segment.split('\\').some((name) => DOT_GIT.test(name.replace(HFS_IGNORED, '')))
}

/** Git requires these to be files (fsck.c, gitmodulesBlob, gitattributesBlob). */
function looksLikeGitFile(folder: string): boolean {
  const file = gitFileOf(folder)
  return file === '.gitmodules' || file === '.gitattributes'
}

/**
 * Paths that exclude each other: the same path twice, or a path that is both a file and a folder. `pathAt`
 * returns the field of the n-th path. For git, names that differ only in case or Unicode form are different.
 */
export async function findPathClashes(
  paths: readonly string[],
  pathAt: (index: number) => string,
  scheduler: CooperativeScheduler,
): Promise<FieldError[]> {
  const errors: FieldError[] = []
  const files = new Map<string, number>()
  const folders = new Map<string, number>()
  for (const [index, path] of paths.entries()) {
    if (scheduler.shouldYield) await scheduler.yieldToEventLoop()
    // Already invalid, and it could have millions of folders.
    if (path.length > MAX_PATH_BYTES) continue
    const first = files.get(path)
    if (first !== undefined) {
      errors.push({ path: pathAt(index), reason: `is the same as ${pathAt(first)}: ${quote(path)}` })
      continue
    }
    files.set(path, index)
    // If a folder is known, so are its parents.
    for (let end = path.lastIndexOf('/'); end > 0; end = path.lastIndexOf('/', end - 1)) {
      const folder = path.slice(0, end)
      if (folders.has(folder)) break
      folders.set(folder, index)
      if (folders.size > MAX_FOLDERS) {
        return [
          ...errors,
          { path: pathAt(index), reason: `exceeds the limit of ${MAX_FOLDERS} folders in total` },
        ]
      }
    }
  }
  for (const [folder, within] of folders) {
    const file = files.get(folder)
    if (file === undefined) continue
    const [earlier, later] = file < within ? [file, within] : [within, file]
    errors.push({
      path: pathAt(later),
      reason: `clashes with ${pathAt(earlier)}: ${quote(folder)} cannot be both a file and a folder`,
    })
  }
  return errors
}
