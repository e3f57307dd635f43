import mustache, { type Token } from 'mustache'
import { quote } from '../errors.ts'

export type Delimiters = readonly [open: string, close: string]

/** A text with tags, parsed once. */
export interface TemplateText {
  tokens: readonly Token[]
  /** The variable of each tag, in order. */
  variableNames: readonly string[]
}

/**
 * Parses `{{name}}` and, unescaped, `{{{name}}}`; no sections, comments or partials. `${{ … }}` stays
 * unchanged: it is GitHub workflow syntax. Returns null for a text without tags. Throws an `Error` with the
 * line of any other tag, so that neither a typo nor another language's braces go unnoticed.
 */
export function parseTemplateText(
  text: string,
  declared: ReadonlySet<string>,
  delimiters: Delimiters,
): TemplateText | null {
  if (!text.includes(delimiters[0])) return null
  const tokens = parse(text, delimiters).map((token): Token => {
    const [type, name, start, end] = token
    if (type === 'text') return token
    if (text[start - 1] === '$') return ['text', text.slice(start, end), start, end]
    const tag = `line ${lineOf(text, start)}: ${quote(text.slice(start, end))}`
    if (type !== 'name' && type !== '&') throw new Error(`${tag} is not a plain tag`)
    if (!declared.has(name)) throw new Error(`${tag} does not name a variable of this template`)
    return token
  })
  // Mustache drops lines that contain only a section or a comment. These were rejected above,
  // so nothing may be missing.
  const covered = tokens.reduce((length, [, , start, end]) => length + end - start, 0)
  if (covered !== text.length) throw new Error('has tags that are not plain')
  const variableNames = tokens.filter(([type]) => type !== 'text').map(([, name]) => name)
  return variableNames.length === 0 ? null : { tokens, variableNames }
}

function parse(text: string, delimiters: Delimiters): Token[] {
  try {
    // A writer caches every text that it parses, so this one is used once.
    return new mustache.Writer().parse(text, delimiters)
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error)
    throw new Error(reason.replace(/ at (\d+)$/, (_, position) => `, line ${lineOf(text, Number(position))}`))
  }
}

function lineOf(text: string, position: number): number {
  return text.slice(0, position).split('\n').length
}

const writer = new mustache.Writer()

/** Escapes `{{name}}` with `escapeValue`. Tags inside values are not expanded. */
export function renderTemplateText(
  text: TemplateText,
  values: Readonly<Record<string, string>>,
  escapeValue: (value: string) => string,
): string {
  return writer.renderTokens(text.tokens, new mustache.Context(values), undefined, undefined, {
    escape: escapeValue,
  })
}

/**
 * How to escape a value, by the file's extension, so that a quote in a description does not break a
 * package.json: within double quotes in JSON, YAML and TOML; as text or an attribute in HTML and
 * XML; not in other files.
 */
export function escapeFor(path: string): (value: string) => string {
  const extension = path.slice(path.lastIndexOf('.') + 1).toLowerCase()
  if (/^(?:json|ya?ml|toml|webmanifest)$/.test(extension))
    return (value) =>
      JSON.stringify(value)
        .slice(1, -1)
        // Line breaks in YAML 1.1.
        .replace(/[\u2028\u2029]/g, (end) => (end === '\u2028' ? '\\u2028' : '\\u2029'))
  if (/^(?:html?|xml|svg)$/.test(extension))
    return (value) => value.replace(/[&<>"']/g, (character) => ENTITIES[character] ?? character)
  return noEscape
}

export function noEscape(value: string): string {
  return value
}

const ENTITIES: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
}
