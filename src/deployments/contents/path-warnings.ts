import { quote } from '../../errors.ts'
import type { CooperativeScheduler } from '../../runtime/cooperative-scheduler.ts'

/** What people should know about contents that are accepted all the same. */
export interface Warnings {
  /** Sentences; of many, the first 20. */
  messages: string[]
  /** How many there are in all. */
  count: number
}

const MAX_MESSAGES = 20
const MAX_DISPLAY_LENGTH = 80

/** learn.microsoft.com, "Naming Files, Paths, and Namespaces"; git's is_valid_win32_path (compat/mingw.c). */
const WINDOWS_CHARACTERS = /[<>:"|?*\\]/
const WINDOWS_DEVICE = /^(?:con|prn|aux|nul|com[1-9¹²³]|lpt[1-9¹²³]|conin\$|conout\$) *(?:[.:]|$)/i

/**
 * Names that git takes and other systems do not: Windows cannot check them out, Windows or macOS takes two of them for
 * one, or they look like something else. Each file and folder is looked at once. The paths have to be without faults.
 */
export async function pathWarnings(
  paths: readonly string[],
  slices: CooperativeScheduler,
): Promise<Warnings> {
  const names = new NameTree()
  for (const path of paths) {
    if (slices.shouldYield) await slices.yieldToEventLoop()
    names.add(path)
  }
  return { messages: names.messages, count: names.count }
}

/** A file or a folder, as it is spelt. */
interface Entry {
  name: string
  parent: Entry | null
  isFile: boolean
  children: Map<string, Entry>
  folded: FoldedEntry
}

/** All entries that are one where case and Unicode form do not count. */
interface FoldedEntry {
  first?: Entry
  children: Map<string, FoldedEntry>
}

/** A tree, so that each name is compared once, and not once for each folder that it is in. */
class NameTree {
  readonly messages: string[] = []
  count = 0
  private readonly root = createEntry('', null, false, { children: new Map() })

  add(path: string): void {
    let at = this.root
    const names = path.split('/')
    for (const [index, name] of names.entries()) {
      at = at.children.get(name) ?? this.addEntry(at, name, index === names.length - 1)
    }
  }

  private addEntry(parent: Entry, name: string, isFile: boolean): Entry {
    const siblings = parent.folded.children
    const key = foldName(name)
    const folded: FoldedEntry = siblings.get(key) ?? { children: new Map() }
    siblings.set(key, folded)
    const entered = createEntry(name, parent, isFile, folded)
    parent.children.set(name, entered)
    for (const reason of nameWarnings(name)) this.warn(() => `${displayPath(entered)} ${reason}`)
    if (folded.first) this.warnOfSameName(folded.first, entered)
    else folded.first = entered
    return entered
  }

  private warnOfSameName(one: Entry, other: Entry): void {
    const both = () => `${displayPath(one)} and ${displayPath(other)}`
    if (one.isFile || other.isFile) {
      this.warn(() => `${both()} are the same name on Windows or macOS, where only one of them is kept.`)
    } else if (one.parent === other.parent) {
      // Otherwise it has been said of their parents.
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
  if (WINDOWS_DEVICE.test(name))
    reasons.push('cannot be checked out on Windows, where it is the name of a device.')
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

/** Equal for names that differ by case or Unicode form only. Capitals of "ß" and "ﬁ" are two letters, as for APFS. */
function foldName(name: string): string {
  if (IS_ASCII.test(name)) return name.toLowerCase()
  const lower = name.normalize('NFD').toLowerCase()
  const folded = lower.replace(/[^ı]+/g, (part) => part.toUpperCase()).toLowerCase()
  return folded.replaceAll('ς', 'σ').normalize('NFC')
}

/** The path, or its end: what is wrong is the last name. */
function displayPath({ name, parent }: Entry): string {
  let path = name
  for (let at = parent; at?.parent; at = at.parent) path = `${at.name}/${path}`
  return quote(path.length > MAX_DISPLAY_LENGTH ? `…${path.slice(1 - MAX_DISPLAY_LENGTH)}` : path)
}
