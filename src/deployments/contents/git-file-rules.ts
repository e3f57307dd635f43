import { quote } from '../../errors.ts'
import { parseGitConfig } from './git-config.ts'

/** `git fsck` rejects lines of 2,048 bytes since 2.38.3 (gitattributesLineLength). */
const MAX_ATTRIBUTES_LINE_BYTES = 2047
/** `git fsck`: gitattributesLarge. */
const MAX_ATTRIBUTES_BYTES = 100 * 1024 * 1024
/** Our own limit: parsing a .gitmodules blocks the event loop. */
const MAX_MODULES_BYTES = 256 * 1024

type GitFile = '.gitmodules' | '.gitattributes' | '.gitignore' | '.mailmap'

/** Most names: no system treats them as other names. */
const PLAIN_NAME = /^[A-Za-z0-9_-][A-Za-z0-9_.-]*$/
/** Code points that HFS+ ignores in names. */
const HFS_IGNORED = /[\u200c-\u200f\u202a-\u202e\u206a-\u206f\ufeff]/g
const GIT_FILE_NAMES: [GitFile, RegExp][] = [
  ['.gitmodules', ntfsNames('gitmodules', 'gi7eba')],
  ['.gitattributes', ntfsNames('gitattributes', 'gi7d29')],
  ['.gitignore', ntfsNames('gitignore', 'gi250a')],
  ['.mailmap', ntfsNames('mailmap', 'maba30')],
]

/**
 * The special git file that some system opens by this name, as in `git fsck`: HFS+ ignores code
 * points; NTFS ignores trailing dots and spaces, and supports short names and streams after a colon;
 * Windows treats "\" as "/".
 */
export function gitFileOf(name: string): GitFile | undefined {
  if (PLAIN_NAME.test(name)) return undefined
  const compared = name.replace(HFS_IGNORED, '')
  return GIT_FILE_NAMES.find(([, pattern]) => pattern.test(compared))?.[0]
}

/** Matches the name, or a short name: six characters and a number, or characters of its hash. */
function ntfsNames(name: string, hashed: string): RegExp {
  const short = Array.from({ length: 7 }, (_, kept) => `${hashed.slice(0, kept)}~[1-9][0-9]{${6 - kept}}`)
  return new RegExp(`(?:^|\\\\)(?:\\.${name}|${name.slice(0, 6)}~[1-4]|${short.join('|')})[. ]*(?::|$)`, 'i')
}

/**
 * Invalid contents of special git files, in any folder: forges that check pushes (receive.fsckObjects) reject
 * the whole commit. Returns at most one reason.
 */
export function validateGitFile(path: string, content: Uint8Array): string[] {
  const name = path.slice(path.lastIndexOf('/') + 1)
  const file = gitFileOf(name)
  const reason =
    file === '.gitattributes'
      ? validateAttributes(content)
      : file === '.gitmodules'
        ? validateModules(content)
        : undefined
  if (reason === undefined) return []
  return [
    name === file ? `${reason}: ${quote(path)}` : `${reason}; ${quote(path)} is ${file} on some systems`,
  ]
}

function validateAttributes(content: Uint8Array): string | undefined {
  if (content.length > MAX_ATTRIBUTES_BYTES)
    return "must be at most 100 MiB, which is git's limit for a .gitattributes"
  const end = content.indexOf(0)
  const text = end < 0 ? content : content.subarray(0, end)
  // Jumps from the start of a line to the last line end within the limit: no line in between can be too long.
  for (let start = 0, end = 0; start + MAX_ATTRIBUTES_LINE_BYTES < text.length; start = end + 1) {
    end = text.lastIndexOf(0x0a, start + MAX_ATTRIBUTES_LINE_BYTES)
    if (end < start) {
      return `must not have lines of more than ${MAX_ATTRIBUTES_LINE_BYTES} bytes, which git rejects in a .gitattributes`
    }
  }
  return undefined
}

/**
 * gitmodulesName, gitmodulesUrl, gitmodulesPath, gitmodulesUpdate: values that could run
 * commands or overwrite files.
 */
function validateModules(content: Uint8Array): string | undefined {
  if (content.length > MAX_MODULES_BYTES)
    return 'must be at most 256 KiB, which is the limit for a .gitmodules'
  let section: string | undefined
  let nameError: string | undefined
  for (const entry of parseGitConfig(content)) {
    if (!entry.section.startsWith('submodule.')) continue
    // Once per section: its name and its list of entries can both be long.
    if (entry.section !== section) nameError = validateSubmoduleName(entry.section.slice('submodule.'.length))
    section = entry.section
    const reason =
      nameError ?? (entry.value === null ? undefined : validateSubmoduleValue(entry.key, entry.value))
    if (reason !== undefined) return `${reason} (line ${entry.line()})`
  }
  return undefined
}

function validateSubmoduleName(name: string): string | undefined {
  if (name !== '' && !name.split(/[/\\]/).includes('..')) return undefined
  return 'must not give a submodule a name that is empty or contains ".."'
}

function validateSubmoduleValue(key: string, value: string): string | undefined {
  switch (key) {
    case 'path':
      return value.startsWith('-') ? 'must not give a submodule a path that begins with "-"' : undefined
    case 'update':
      return value.startsWith('!') ? 'must not give a submodule an update command' : undefined
    case 'url':
      return validateSubmoduleUrl(value)
    default:
      return undefined
  }
}

/** Stricter than git where no working URL is affected. */
function validateSubmoduleUrl(url: string): string | undefined {
  if (url.startsWith('-')) return 'must not give a submodule a url that begins with "-"'
  if (/\n|%0a/i.test(url)) return 'must not give a submodule a url with a line break, encoded or not'
  if (/^(?:\.[/\\])*(?:\.\.[/\\])(?:\.{1,2}[/\\])*[:/]/.test(url)) {
    return 'must not give a submodule a url that reaches another host through "../"'
  }
  const http =
    /^(?:https?|ftps?)::(.*)$/s.exec(url)?.[1] ?? (/^(?:https?|ftps?):\/\//.test(url) ? url : undefined)
  if (http !== undefined && !isHttpUrl(http)) return 'must give a submodule a valid url'
  return undefined
}

const HTTP_URL =
  /^[A-Za-z][A-Za-z0-9+.-]*:\/\/(?:[^/?#@]*@)?(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::(\d*))?(\/[^?#]*)?(?:[?#].*)?$/s

/** A subset of what git's url_normalize() accepts. */
function isHttpUrl(url: string): boolean {
  const parts = HTTP_URL.exec(url)
  if (parts === null || /%(?![0-9a-f]{2})/i.test(url)) return false
  const [, port = '', path = ''] = parts
  if (port !== '' && (Number(port) < 1 || Number(port) > 65_535)) return false
  let depth = 0
  for (const segment of path.replace(/%2e/gi, '.').split('/')) {
    if (segment === '..') depth--
    else if (segment !== '' && segment !== '.') depth++
    if (depth < 0) return false
  }
  return true
}
