import mustache, { type Token } from 'mustache'
import { validateGitFile } from '../deployments/contents/git-file-rules.ts'
import { findPathClashes, validatePath } from '../deployments/contents/path-rules.ts'
import { type FieldError, quote } from '../errors.ts'
import type { ContentFile } from '../github/git/commit-pack.ts'
import type { CooperativeScheduler } from '../runtime/cooperative-scheduler.ts'
import type { LoadedTemplate, TemplateFile } from './load-template.ts'
import type { ResolvedVariables } from './template-manifest.ts'

const INPUT_PATH = 'input.contents.template'
/** What values may add to one file, and to all: a long value used many times must not fill the memory. */
const MAX_INSERTED_LENGTH_PER_FILE = 1024 * 1024
const MAX_INSERTED_LENGTH = 16 * 1024 * 1024

/** All files of the template with these values, or all faults. */
export async function renderTemplate(
  { name, files }: LoadedTemplate,
  variables: ResolvedVariables,
  slices: CooperativeScheduler,
): Promise<{ files: ContentFile[] } | { faults: FieldError[] }> {
  const tooMuch = validateInsertedLength(files, variables.values)
  if (tooMuch.length > 0) return { faults: tooMuch }

  const faults: FieldError[] = []
  const rendered: ContentFile[] = []
  for (const file of files) {
    if (slices.shouldYield) await slices.yieldToEventLoop()
    const path = renderPath(file, variables, faults)
    const content = renderContent(file, path, variables.values)
    // A file without tags was checked when the template was loaded.
    if (path !== file.path || content !== file.content) {
      for (const reason of validateGitFile(path, content)) {
        faults.push({ path: INPUT_PATH, reason: `renders badly: ${quote(file.path)} ${reason}` })
      }
    }
    rendered.push({ path, content, executable: file.executable })
  }
  // Paths without tags are those of a folder: they cannot clash.
  if (files.some((file) => file.renderedPath !== null)) {
    const paths = rendered.map((file) => file.path)
    const clashes = await findPathClashes(paths, (index) => `"${files[index]?.path}" in the template`, slices)
    for (const { path, reason } of clashes)
      faults.push({ path: INPUT_PATH, reason: `renders badly: ${path} ${reason}` })
  }
  if (faults.length > 0) return { faults }
  if (rendered.length === 0) return { faults: [{ path: INPUT_PATH, reason: `"${name}" has no files` }] }
  return { files: rendered }
}

function validateInsertedLength(
  files: readonly TemplateFile[],
  values: ResolvedVariables['values'],
): FieldError[] {
  let total = 0
  let largest = 0
  for (const { content, renderedPath } of files) {
    const length = insertedLength(content, values) + insertedLength(renderedPath, values)
    total += length
    largest = Math.max(largest, length)
  }
  if (total <= MAX_INSERTED_LENGTH && largest <= MAX_INSERTED_LENGTH_PER_FILE) return []
  const reason =
    'are too long for the number of places where the template uses them: 1 MiB in a file, 16 MiB in all'
  return [{ path: `${INPUT_PATH}.variables`, reason }]
}

function insertedLength(text: TemplateText | Uint8Array | null, values: ResolvedVariables['values']): number {
  if (text === null || text instanceof Uint8Array) return 0
  return text.variableNames.reduce((length, name) => length + (values[name]?.length ?? 0), 0)
}

/** A fault in the path is laid to the first given variable in it. */
function renderPath(
  file: TemplateFile,
  { values, inputIndexes: givenAt }: ResolvedVariables,
  faults: FieldError[],
): string {
  if (file.renderedPath === null) return file.path
  const path = renderTemplateText(file.renderedPath, values, noEscape)
  for (const reason of validatePath(path)) {
    const index = file.renderedPath.variableNames
      .map((name) => givenAt.get(name))
      .find((given) => given !== undefined)
    const at = index === undefined ? INPUT_PATH : `${INPUT_PATH}.variables[${index}].value`
    faults.push({ path: at, reason: `makes a path of ${quote(file.path)} that ${reason}` })
  }
  return path
}

function renderContent(
  { content }: TemplateFile,
  path: string,
  values: ResolvedVariables['values'],
): Uint8Array {
  if (content instanceof Uint8Array) return content
  return Buffer.from(renderTemplateText(content, values, escapeFor(path)))
}

export type Delimiters = readonly [open: string, close: string]

/** A text with tags in it, parsed once. */
export interface TemplateText {
  tokens: readonly Token[]
  /** The variable of each tag, in order. */
  variableNames: readonly string[]
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
  return uses.length === 0 ? null : { tokens, variableNames: uses }
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
