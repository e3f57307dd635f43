import mustache, { type Token } from 'mustache'
import { quote } from '../../errors.ts'

export type Delimiters = readonly [open: string, close: string]

/** A text with tags in it, parsed once. */
export interface TemplateText {
  tokens: readonly Token[]
  /** The variable of each tag, in order. */
  uses: readonly string[]
}

const writer = new mustache.Writer()

/**
 * `{{name}}` and, unescaped, `{{{name}}}`; no sections, comments or partials. `${{ … }}` stays as it is: that is
 * GitHub's, in workflows. Returns null for a text without tags; throws an `Error` that gives the line for any other
 * tag, so that neither a slip of the pen nor somebody else's braces go through unnoticed.
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
    const source = quote(text.slice(start, end))
    if (type !== 'name' && type !== '&')
      throw new Error(`line ${lineOf(text, start)}: ${source} is no plain tag`)
    if (declared.has(name)) return token
    throw new Error(`line ${lineOf(text, start)}: ${source} names no variable of this template`)
  })
  // Mustache drops lines that hold nothing but a section or a comment; a template of ours has none to be dropped.
  const covered = tokens.reduce((length, [, , start, end]) => length + end - start, 0)
  if (covered !== text.length) throw new Error('has tags that are not plain')
  const uses = tokens.filter(([type]) => type !== 'text').map(([, name]) => name)
  return uses.length === 0 ? null : { tokens, uses }
}

function parse(text: string, delimiters: Delimiters): Token[] {
  try {
    // A writer for this once: one that lives on would keep every text.
    return new mustache.Writer().parse(text, delimiters)
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error)
    throw new Error(reason.replace(/ at (\d+)$/, (_, position) => `, line ${lineOf(text, Number(position))}`))
  }
}

function lineOf(text: string, position: number): number {
  return text.slice(0, position).split('\n').length
}

/** `{{name}}` as `escapeValue` has it. What a value brings along is never taken for a tag. */
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
 * How a value is written into a file, by the file's extension, so that a quote in a description breaks no package.json:
 * inside double quotes in JSON, YAML and TOML; as text or an attribute in HTML and XML; anywhere else as it is.
 */
export function escapeFor(path: string): (value: string) => string {
  const extension = path.slice(path.lastIndexOf('.') + 1).toLowerCase()
  if (/^(?:json|ya?ml|toml|webmanifest)$/.test(extension))
    return (value) =>
      JSON.stringify(value)
        .slice(1, -1)
        // YAML 1.1 takes them for line breaks.
        .replace(/[\u2028\u2029]/g, (end) => (end === '\u2028' ? '\\u2028' : '\\u2029'))
  if (/^(?:html?|xml|svg)$/.test(extension))
    return (value) => value.replace(/[&<>"']/g, (c) => ENTITIES[c] ?? c)
  return asItIs
}

export function asItIs(value: string): string {
  return value
}

const ENTITIES: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
}
