interface ConfigEntry {
  /** Joined as in git: `submodule.lib/a`. The same string for all entries of a section. */
  section: string
  key: string
  /** Null for a key without "=". */
  value: string | null
  /** From 1. Scans the text. */
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
 * Parses git's configuration syntax (git-config(1), "Syntax") up to the end or the first error: git uses the
 * entries before it. Bytes are read as Latin-1, and names and values end at a NUL, as in git.
 */
export function* parseGitConfig(bytes: Uint8Array): Generator<ConfigEntry> {
  const text = new Scanner(bytes)
  let section: Section = { name: '' }
  text.skip(BYTE_ORDER_MARK)
  for (;;) {
    if (text.read(SPACES) !== '') continue
    if (text.isAtEnd) return
    const { position } = text
    if (text.skip('#') || text.skip(';')) {
      text.read(REST_OF_LINE)
    } else if (text.skip('[')) {
      const next = parseSection(text)
      if (next === null) return
      section = next
    } else {
      const key = text.read(KEY).toLowerCase()
      if (key === '') return
      text.read(BLANKS)
      let value: string | null = null
      if (!text.isAtEnd && !text.skip('\n')) {
        if (!text.skip('=')) return
        value = parseValue(text)
        if (value === null) return
      }
      yield {
        section: section.name,
        key: section.key ?? key,
        value: value && untilNul(value),
        line: () => text.lineAt(position),
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

  lineAt(position: number): number {
    return this.text.slice(0, position).split('\n').length
  }

  nextCharacter(): string {
    return this.text[this.position++] ?? '\n'
  }
}

interface Section {
  name: string
  /** Set if a NUL in the name makes the end of the name the key of every entry. */
  key?: string
}

/** `[section]`, `[section.subsection]` or `[section "subsection"]`, after the opening bracket. */
function parseSection(text: Scanner): Section | null {
  let name = text.read(SECTION).toLowerCase()
  if (!text.skip(']')) {
    if (text.read(VALUE_SPACES) === '' || !text.skip('"')) return null
    name += `.${text.read(SUBSECTION).replace(/\\(.)/gs, '$1')}`
    if (!text.skip('"]')) return null
  }
  if (name === '') return null
  if (!name.includes('\0')) return { name }
  const visible = untilNul(name)
  const dot = visible.lastIndexOf('.')
  return { name: visible.slice(0, dot), key: visible.slice(dot + 1) }
}

/** Null for an unclosed quote or an unknown escape. */
function parseValue(text: Scanner): string | null {
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
        const unescaped = ESCAPES[text.nextCharacter()]
        if (unescaped === undefined) return null
        value += unescaped
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
