import { type Fault, quote } from '../../errors.ts'
import type { ContentFile } from '../../github/prepared-contents.ts'
import { gitFileFaults } from './git-file-faults.ts'
import { clashFaults, pathFaults } from './path-faults.ts'
import type { LoadedTemplate, TemplateFile } from './template-folder.ts'
import { asItIs, escapeFor, renderTemplateText, type TemplateText } from './template-text.ts'
import type { ResolvedVariables } from './template-variables.ts'
import type { TimeSlices } from './time-slices.ts'

const AT = 'input.contents.template'
/** What values may add to one file, and to all: a long value used many times must not fill the memory. */
const MAX_INSERTED_IN_FILE = 1024 * 1024
const MAX_INSERTED = 16 * 1024 * 1024

/** All files of the template with these values, or all faults. */
export async function renderTemplate(
  { name, files }: LoadedTemplate,
  variables: ResolvedVariables,
  slices: TimeSlices,
): Promise<{ files: ContentFile[] } | { faults: Fault[] }> {
  const tooMuch = insertedFaults(files, variables.values)
  if (tooMuch.length > 0) return { faults: tooMuch }

  const faults: Fault[] = []
  const rendered: ContentFile[] = []
  for (const file of files) {
    if (slices.isOver) await slices.next()
    const path = renderPath(file, variables, faults)
    const content = renderContent(file, path, variables.values)
    // A file without tags was checked when the template was loaded.
    if (path !== file.path || content !== file.content) {
      for (const reason of gitFileFaults(path, content)) {
        faults.push({ path: AT, reason: `renders badly: ${quote(file.path)} ${reason}` })
      }
    }
    rendered.push({ path, content, executable: file.executable })
  }
  // Paths without tags are those of a folder: they cannot clash.
  if (files.some((file) => file.renderedPath !== null)) {
    const paths = rendered.map((file) => file.path)
    const clashes = await clashFaults(paths, (index) => `"${files[index]?.path}" in the template`, slices)
    for (const { path, reason } of clashes)
      faults.push({ path: AT, reason: `renders badly: ${path} ${reason}` })
  }
  if (faults.length > 0) return { faults }
  if (rendered.length === 0) return { faults: [{ path: AT, reason: `"${name}" has no files` }] }
  return { files: rendered }
}

function insertedFaults(files: readonly TemplateFile[], values: ResolvedVariables['values']): Fault[] {
  let total = 0
  let largest = 0
  for (const { content, renderedPath } of files) {
    const length = insertedLength(content, values) + insertedLength(renderedPath, values)
    total += length
    largest = Math.max(largest, length)
  }
  if (total <= MAX_INSERTED && largest <= MAX_INSERTED_IN_FILE) return []
  const reason =
    'are too long for the number of places where the template uses them: 1 MiB in a file, 16 MiB in all'
  return [{ path: `${AT}.variables`, reason }]
}

function insertedLength(text: TemplateText | Uint8Array | null, values: ResolvedVariables['values']): number {
  if (text === null || text instanceof Uint8Array) return 0
  return text.uses.reduce((length, name) => length + (values[name]?.length ?? 0), 0)
}

/** A fault in the path is laid to the first given variable in it. */
function renderPath(file: TemplateFile, { values, givenAt }: ResolvedVariables, faults: Fault[]): string {
  if (file.renderedPath === null) return file.path
  const path = renderTemplateText(file.renderedPath, values, asItIs)
  for (const reason of pathFaults(path)) {
    const index = file.renderedPath.uses.map((name) => givenAt.get(name)).find((given) => given !== undefined)
    const at = index === undefined ? AT : `${AT}.variables[${index}].value`
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
