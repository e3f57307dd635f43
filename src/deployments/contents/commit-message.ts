/**
 * Adds a trailer to a commit message like `git interpret-trailers --no-divider`: to the block of trailers at
 * the end of the message, or else as a new block. (An empty line within the block would hide the
 * `Signed-off-by:` and `Co-authored-by:` lines above it from git and GitHub.)
 */
export function withTrailer(message: string, trailer: string): string {
  // Git ignores empty lines before the title.
  const lines = message
    .trimEnd()
    .replace(/^([ \t\r]*\n)+/, '')
    .split('\n')
  const scissors = lines.indexOf(SCISSORS)
  const text = scissors === -1 ? lines : lines.slice(0, scissors)
  const end = endOfBody(text)
  // Comments stay after the trailers: git expects trailers before them.
  if (endsInTrailers(text.slice(0, end))) return `${lines.toSpliced(end, 0, trailer).join('\n')}\n`
  const body = text.join('\n').trimEnd()
  const rest = lines.slice(text.length).map((line) => `\n${line}`)
  return `${body}\n\n${trailer}${rest.join('')}\n`
}

/** Git's cut line, which ends the message. */
const SCISSORS = '# ------------------------ >8 ------------------------'

/** Lines that git writes: a block with one of them may also contain other lines. */
const WRITTEN_BY_GIT = ['Signed-off-by: ', '(cherry picked from commit ']

/** The number of lines before the comments, empty lines and old-style list of conflicts at the end. */
function endOfBody(lines: readonly string[]): number {
  let end = 0
  let isConflicts = false
  for (const [i, line] of lines.entries()) {
    if (line === 'Conflicts:') isConflicts = true
    else if (line !== '' && !isComment(line) && !(isConflicts && line.startsWith('\t'))) {
      end = i + 1
      isConflicts = false
    }
  }
  return lines.findLastIndex((line, i) => i < end && !isBlank(line) && !isComment(line)) + 1
}

/** Git's `find_trailer_start`: the last paragraph, which is not the title, is all or mostly trailers. */
function endsInTrailers(lines: readonly string[]): boolean {
  const endOfTitle = lines.findIndex(isBlank)
  if (endOfTitle === -1) return false
  let trailers = 0
  let others = 0
  let isWrittenByGit = false
  /** Indented lines continue a trailer; below another line they count as other lines. */
  let continuations = 0
  for (const line of lines.slice(endOfTitle + 1).reverse()) {
    if (isBlank(line)) break
    if (WRITTEN_BY_GIT.some((prefix) => line.startsWith(prefix))) {
      isWrittenByGit = true
      trailers++
      continuations = 0
    } else if (/^[A-Za-z0-9-]+[ \t]*:/.test(line)) {
      trailers++
      continuations = 0
    } else if (/^[ \t\r]/.test(line)) {
      continuations++
    } else {
      others += continuations + (isComment(line) ? 0 : 1)
      continuations = 0
    }
  }
  others += continuations
  return trailers > 0 && (others === 0 || (isWrittenByGit && trailers * 3 >= others))
}

function isBlank(line: string): boolean {
  return /^[ \t\r]*$/.test(line)
}

function isComment(line: string): boolean {
  return line.startsWith('#')
}
