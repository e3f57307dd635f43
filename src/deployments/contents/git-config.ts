export interface ConfigEntry {
  /** As git puts sections and subsections together: `submodule.lib/a`. The same string for all entries of a section. */
  section: string
  key: string
  /** Null for a key without "=". */
  value: string | null
  /** Counted from 1. Counting takes time. */
  line(): number
}

const BYTE_ORDER_MARK = '\xef\xbb\xbf'
const SPACES = /[ \t\n\r]+/y
const BLANKS = /[ \t]+/y
const REST_OF_LINE = /[^\n]*/y
const SECTION = /[A-Za-z0-9.-]*/y
const SUBSECTION = /(?:[^"\\\n]|\\[^\n])*/y
const KEY = /[A-Za-z][A-Za-z0-9-]*/y
const PLAIN = /[^\\"\n\r\t #;]+/y
const QUOTED = /[^\\"\n]+/y
const VALUE_SPACES = /[ \t\r]+/y
const ESCAPES: Record<string, string> = { t: '\t', b: '\b', n: '\n', '\\': '\\', '"': '"', '\n': '' }

/**
 * Reads a file in git's configuration syntax (git-config(1), "Syntax"), up to its end or its first error: git acts on
 * what comes before that. Bytes are taken for Latin-1, and names and values end at a NUL, as they do in git.
 */
export function* readGitConfig(bytes: Uint8Array): Generator<ConfigEntry> {
  const text = new Scanner(bytes)
  let section: Section = { name: '' }
  text.skip(BYTE_ORDER_MARK)
  for (;;) {
    if (text.read(SPACES) !== '') continue
    if (text.isAtEnd) return
    const { position: at } = text
    if (text.skip('#') || text.skip(';')) {
      text.read(REST_OF_LINE)
    } else if (text.skip('[')) {
      const read = readSection(text)
      if (read === null) return
      section = read
    } else {
      const key = text.read(KEY).toLowerCase()
      if (key === '') return
      text.read(BLANKS)
      let value: string | null = null
      if (!text.isAtEnd && !text.skip('\n')) {
        if (!text.skip('=')) return
        value = readValue(text)
        if (value === null) return
      }
      yield {
        section: section.name,
        key: section.key ?? key,
        value: value && untilNul(value),
        line: () => text.lineAt(at),
      }
    }
  }
}

/** The end of the file counts as the end of a line. */
class Scanner {
  position = 0
  private readonly text: string

  constructor(bytes: Uint8Array) {
    this.text = Buffer.from(bytes).toString('latin1').replaceAll('\r\n', '\n')
  }

  get isAtEnd(): boolean {
    return this.position >= this.text.length
  }

  read(pattern: RegExp): string {
    pattern.lastIndex = this.position
    const [found = ''] = pattern.exec(this.text) ?? []
    this.position += found.length
    return found
  }

  skip(expected: string): boolean {
    if (!this.text.startsWith(expected, this.position)) return false
    this.position += expected.length
    return true
  }

  lineAt(at: number): number {
    return this.text.slice(0, at).split('\n').length
  }

  nextCharacter(): string {
    return this.text[this.position++] ?? '\n'
  }
}

interface Section {
  name: string
  /** Where a NUL in the name makes the end of it the key of every entry. */
  key?: string
}

/** `[section]`, `[section.subsection]` or `[section "subsection"]`, behind the bracket. */
function readSection(text: Scanner): Section | null {
  let name = text.read(SECTION).toLowerCase()
  if (!text.skip(']')) {
    if (text.read(VALUE_SPACES) === '' || !text.skip('"')) return null
    name += `.${text.read(SUBSECTION).replace(/\\(.)/gs, '$1')}`
    if (!text.skip('"]')) return null
  }
  if (name === '') return null
  if (!name.includes('\0')) return { name }
  const shown = untilNul(name)
  const dot = shown.lastIndexOf('.')
  return { name: shown.slice(0, dot), key: shown.slice(dot + 1) }
}

/** Null where it is not closed, or has an escape that git does not know. */
function readValue(text: Scanner): string | null {
  let value = ''
  let spaces = ''
  let isQuoted = false
  for (;;) {
    const plain = text.read(isQuoted ? QUOTED : PLAIN)
    if (plain !== '') {
      value += spaces + plain
      spaces = ''
    }
    const character = text.nextCharacter()
    if (character === '\n') return isQuoted ? null : value
    if (character === '#' || character === ';') {
      text.read(REST_OF_LINE)
    } else if (character === '"' || character === '\\') {
      value += spaces
      spaces = ''
      if (character === '"') isQuoted = !isQuoted
      else {
        const meant = ESCAPES[text.nextCharacter()]
        if (meant === undefined) return null
        value += meant
      }
    } else {
      const more = text.read(VALUE_SPACES)
      if (value !== '') spaces += character + more
    }
  }
}

function untilNul(text: string): string {
  const end = text.indexOf('\0')
  return end < 0 ? text : text.slice(0, end)
}
