import { quote } from '../../errors.ts'
import type { CooperativeScheduler } from '../../runtime/cooperative-scheduler.ts'

/** Problems with contents that are accepted nevertheless. */
export interface Warnings {
  /** Sentences; at most the first 20. */
  messages: string[]
  /** Including those left out of `messages`. */
  count: number
}

const MAX_MESSAGES = 20
const MAX_DISPLAY_LENGTH = 80

/** learn.microsoft.com, "Naming Files, Paths, and Namespaces"; git's is_valid_win32_path (compat/mingw.c). */
const WINDOWS_CHARACTERS = /[<>:"|?*\\]/
const WINDOWS_DEVICE = /^(?:con|prn|aux|nul|com[1-9¹²³]|lpt[1-9¹²³]|conin\$|conout\$) *(?:[.:]|$)/i

/**
 * Finds names that git accepts but that cause problems elsewhere: Windows cannot check them out, Windows
 * or macOS treats two of them as one, or they look like another name. Examines each file and folder once.
 * The paths must be valid.
 */
export async function findPathWarnings(
  paths: readonly string[],
  scheduler: CooperativeScheduler,
): Promise<Warnings> {
  const names = new NameTree()
  for (const path of paths) {
    if (scheduler.shouldYield) await scheduler.yieldToEventLoop()
    names.add(path)
  }
  return { messages: names.messages, count: names.count }
}

/** A file or folder, by its exact name. */
interface Entry {
  name: string
  parent: Entry | null
  isFile: boolean
  children: Map<string, Entry>
  folded: FoldedEntry
}

/** All entries that are the same if case and Unicode form are ignored. */
interface FoldedEntry {
  first?: Entry
  children: Map<string, FoldedEntry>
}

/** A tree, so that each name is compared once rather than once per path that contains it. */
class NameTree {
  readonly messages: string[] = []
  count = 0
  private readonly root = createEntry('', null, false, { children: new Map() })

  add(path: string): void {
    let parent = this.root
    const names = path.split('/')
    for (const [index, name] of names.entries()) {
      parent = parent.children.get(name) ?? this.addEntry(parent, name, index === names.length - 1)
    }
  }

  private addEntry(parent: Entry, name: string, isFile: boolean): Entry {
    const siblings = parent.folded.children
    const key = foldName(name)
    const folded: FoldedEntry = siblings.get(key) ?? { children: new Map() }
    siblings.set(key, folded)
    const entry = createEntry(name, parent, isFile, folded)
    parent.children.set(name, entry)
    for (const reason of nameWarnings(name)) this.warn(() => `${displayPath(entry)} ${reason}`)
    if (folded.first) this.warnAboutSameName(folded.first, entry)
    else folded.first = entry
    return entry
  }

  private warnAboutSameName(one: Entry, other: Entry): void {
    const both = () => `${displayPath(one)} and ${displayPath(other)}`
    if (one.isFile || other.isFile) {
      this.warn(() => `${both()} are the same name on Windows or macOS, which keep only one of them.`)
    } else if (one.parent === other.parent) {
      // Otherwise the warning about their parents covers it.
      this.warn(() => `${both()} become one folder on Windows or macOS.`)
    }
  }

  private warn(sentence: () => string): void {
    this.count++
    if (this.messages.length < MAX_MESSAGES) this.messages.push(sentence())
  }
}

function createEntry(name: string, parent: Entry | null, isFile: boolean, folded: FoldedEntry): Entry {
  return { name, parent, isFile, children: new Map(), folded }
}

function nameWarnings(name: string): string[] {
  const reasons: string[] = []
  if (WINDOWS_DEVICE.test(name)) reasons.push('cannot be checked out on Windows, where it is a device name.')
  if (WINDOWS_CHARACTERS.test(name)) {
    reasons.push('cannot be checked out on Windows, where names cannot contain < > : " | ? * or \\.')
  }
  if (/[. ]$/.test(name)) {
    reasons.push('cannot be checked out on Windows, where names cannot end with a dot or a space.')
  }
  if (IS_ASCII.test(name)) return reasons
  if (/[[\p{Cf}\p{DI}\p{Zl}\p{Zp}]--\ufe0f]/v.test(name)) {
    reasons.push('contains characters that are invisible or reorder text, so it can look like another name.')
  }
  if (/\p{Cn}/u.test(name)) {
    reasons.push('may fail to check out on macOS: it contains characters that Unicode does not define.')
  }
  return reasons
}

const IS_ASCII = /^[ -~]*$/

/**
 * Equal for names that differ only in case or Unicode form. As on APFS, "ß" and "ﬁ" become
 * two letters in upper case.
 */
function foldName(name: string): string {
  if (IS_ASCII.test(name)) return name.toLowerCase()
  const lower = name.normalize('NFD').toLowerCase()
  const folded = lower.replace(/[^ı]+/g, (part) => part.toUpperCase()).toLowerCase()
  return folded.replaceAll('ς', 'σ').normalize('NFC')
}

/** The path, or its end: the warning concerns the last name. */
function displayPath({ name, parent }: Entry): string {
  let path = name
  for (let at = parent; at?.parent; at = at.parent) path = `${at.name}/${path}`
  return quote(path.length > MAX_DISPLAY_LENGTH ? `…${path.slice(1 - MAX_DISPLAY_LENGTH)}` : path)
}
