import { validateGitFile } from '../deployments/contents/git-file-rules.ts'
import { findPathClashes, validatePath } from '../deployments/contents/path-rules.ts'
import { type FieldError, quote } from '../errors.ts'
import type { ContentFile } from '../github/git/commit-pack.ts'
import type { CooperativeScheduler } from '../runtime/cooperative-scheduler.ts'
import type { LoadedTemplate, TemplateFile } from './load-template.ts'
import { BUILT_INS, type BuiltIns, validateValue } from './template-manifest.ts'
import { escapeFor, noEscape, renderTemplateText, type TemplateText } from './template-text.ts'

export interface VariableValue {
  name: string
  value: string
}

const INPUT_PATH = 'input.contents.template'
const VARIABLES_PATH = `${INPUT_PATH}.variables`
/**
 * What values may add to one file, and to all files: a long value used many times must not exhaust memory.
 */
const MAX_INSERTED_LENGTH_PER_FILE = 1024 * 1024
const MAX_INSERTED_LENGTH = 16 * 1024 * 1024
/** Bounds the work, and the errors, of one request. */
const MAX_INPUT_VARIABLES = 1000

/** All files of the template with these values, or all errors. */
export async function renderTemplate(
  template: LoadedTemplate,
  given: readonly VariableValue[],
  builtIns: BuiltIns,
  scheduler: CooperativeScheduler,
): Promise<{ files: ContentFile[] } | { errors: FieldError[] }> {
  const errors: FieldError[] = []
  const variables = resolveVariables(template, given, builtIns, errors)
  if (errors.length === 0) validateInsertedLength(template.files, variables.values, errors)
  if (errors.length > 0) return { errors }
  const files = await renderFiles(template.files, variables, scheduler, errors)
  return errors.length > 0 ? { errors } : { files }
}

interface ResolvedVariables {
  /** By name: all variables that the template may use. */
  values: Record<string, string>
  /** The position in the input of each given value, for errors found while rendering. */
  inputIndexes: ReadonlyMap<string, number>
}

/** The given value, or else the default, or else the empty string. */
function resolveVariables(
  { name: template, manifest }: LoadedTemplate,
  given: readonly VariableValue[],
  builtIns: BuiltIns,
  errors: FieldError[],
): ResolvedVariables {
  const inputIndexes = new Map<string, number>()
  const values: Record<string, string> = { ...builtIns }
  for (const variable of manifest.variables) values[variable.name] = variable.default ?? ''
  if (given.length > MAX_INPUT_VARIABLES)
    errors.push({ path: VARIABLES_PATH, reason: `must have at most ${MAX_INPUT_VARIABLES} items` })

  const declared = new Map(manifest.variables.map((variable) => [variable.name, variable]))
  const names = [...declared.keys()].join(', ') || 'none'
  for (const [index, { name, value }] of given.slice(0, MAX_INPUT_VARIABLES).entries()) {
    const path = `${VARIABLES_PATH}[${index}]`
    const variable = declared.get(name)
    const first = inputIndexes.get(name)
    if (BUILT_INS.some((builtIn) => builtIn === name)) {
      errors.push({ path: `${path}.name`, reason: `is "${name}", which comes from the input itself` })
    } else if (variable === undefined) {
      const reason = `is ${quote(name)}, which is not a variable of "${template}"; available: ${names}`
      errors.push({ path: `${path}.name`, reason })
    } else if (first !== undefined) {
      const reason = `is the same as ${VARIABLES_PATH}[${first}].name: "${name}"`
      errors.push({ path: `${path}.name`, reason })
    } else {
      inputIndexes.set(name, index)
      values[name] = value
      for (const reason of validateValue(value, variable.pattern))
        errors.push({ path: `${path}.value`, reason })
    }
  }
  for (const { name, description, required } of manifest.variables) {
    if (!required || values[name] !== '') continue
    const index = inputIndexes.get(name)
    if (index === undefined)
      errors.push({ path: VARIABLES_PATH, reason: `must have "${name}": ${description}` })
    else
      errors.push({ path: `${VARIABLES_PATH}[${index}].value`, reason: `must not be empty: ${description}` })
  }
  return { values, inputIndexes }
}

function validateInsertedLength(
  files: readonly TemplateFile[],
  values: ResolvedVariables['values'],
  errors: FieldError[],
): void {
  let total = 0
  let largest = 0
  for (const { content, renderedPath } of files) {
    const length = insertedLength(content, values) + insertedLength(renderedPath, values)
    total += length
    largest = Math.max(largest, length)
  }
  if (total <= MAX_INSERTED_LENGTH && largest <= MAX_INSERTED_LENGTH_PER_FILE) return
  const reason =
    'are too long for how often the template uses them: at most 1 MiB per file and 16 MiB in total'
  errors.push({ path: VARIABLES_PATH, reason })
}

function insertedLength(text: TemplateText | Uint8Array | null, values: ResolvedVariables['values']): number {
  if (text === null || text instanceof Uint8Array) return 0
  return text.variableNames.reduce((length, name) => length + (values[name]?.length ?? 0), 0)
}

async function renderFiles(
  files: readonly TemplateFile[],
  variables: ResolvedVariables,
  scheduler: CooperativeScheduler,
  errors: FieldError[],
): Promise<ContentFile[]> {
  const rendered: ContentFile[] = []
  for (const file of files) {
    if (scheduler.shouldYield) await scheduler.yieldToEventLoop()
    const path = renderPath(file, variables, errors)
    const content = renderContent(file, path, variables.values)
    // A file without tags was validated when the template was loaded.
    if (path !== file.path || content !== file.content) {
      for (const reason of validateGitFile(path, content)) {
        errors.push({ path: INPUT_PATH, reason: `renders an invalid file: ${quote(file.path)} ${reason}` })
      }
    }
    rendered.push({ path, content, executable: file.executable })
  }
  // Paths without tags come from one folder, so they cannot clash.
  if (files.some((file) => file.renderedPath !== null)) {
    const paths = rendered.map((file) => file.path)
    const clashes = await findPathClashes(
      paths,
      (index) => `"${files[index]?.path}" in the template`,
      scheduler,
    )
    for (const { path, reason } of clashes)
      errors.push({ path: INPUT_PATH, reason: `renders an invalid path: ${path} ${reason}` })
  }
  return rendered
}

/** An invalid path is reported for the first given variable in it. */
function renderPath(
  file: TemplateFile,
  { values, inputIndexes }: ResolvedVariables,
  errors: FieldError[],
): string {
  if (file.renderedPath === null) return file.path
  const path = renderTemplateText(file.renderedPath, values, noEscape)
  for (const reason of validatePath(path)) {
    const index = file.renderedPath.variableNames
      .map((name) => inputIndexes.get(name))
      .find((given) => given !== undefined)
    const at = index === undefined ? INPUT_PATH : `${VARIABLES_PATH}[${index}].value`
    errors.push({ path: at, reason: `renders the path ${quote(file.path)} so that it ${reason}` })
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
