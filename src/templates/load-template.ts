import { isUtf8 } from 'node:buffer'
import type { Dirent } from 'node:fs'
import { readdir, readFile, stat } from 'node:fs/promises'
import { join, relative, sep } from 'node:path'
import { matchesGlob } from 'node:path/posix'
import { MAX_FILE_BYTES, MAX_FILES } from '../deployments/contents/decode-content.ts'
import { validateGitFile } from '../deployments/contents/git-file-rules.ts'
import { validatePath } from '../deployments/contents/path-rules.ts'
import { type FieldError, StartupError } from '../errors.ts'
import { BUILT_INS, parseManifest, type TemplateManifest } from './template-manifest.ts'
import { parseTemplateText, type TemplateText } from './template-text.ts'

/** A template in memory, parsed once. */
export interface LoadedTemplate {
  name: string
  manifest: TemplateManifest
  files: readonly TemplateFile[]
  sizeBytes: number
}

export interface TemplateFile {
  /** Relative to `files/`, before rendering. */
  path: string
  renderedPath: TemplateText | null
  /** Bytes: copied unchanged. */
  content: Uint8Array | TemplateText
  executable: boolean
}

/** Lists all errors of one template, by file and field. */
export class BrokenTemplateError extends StartupError {
  override readonly name = 'BrokenTemplateError'

  constructor(template: string, errors: readonly FieldError[]) {
    const lines = errors.slice(0, MAX_LISTED_ERRORS).map(({ path, reason }) => `  ${path} ${reason}`)
    if (errors.length > lines.length) lines.push(`  and ${errors.length - lines.length} more`)
    super(
      `The template "${template}" is broken. Fix it or remove it from TEMPLATES_DIR:\n${lines.join('\n')}`,
    )
  }
}

const MAX_LISTED_ERRORS = 20
/** Parsing a text with tags needs a multiple of its size in memory; larger ones must be verbatim. */
const MAX_RENDERED_BYTES = 1024 * 1024

/** Reads `template.json` and `files/` in `folder`; rejects with `BrokenTemplateError`. */
export async function loadTemplate(folder: string, name: string): Promise<LoadedTemplate> {
  const manifest = await loadManifest(folder, name)
  const errors: FieldError[] = []
  const loader = new FileLoader(manifest, join(folder, 'files'), errors)
  await loader.load()
  if (errors.length > 0) throw new BrokenTemplateError(name, errors)
  return { name, manifest, files: loader.files, sizeBytes: loader.sizeBytes }
}

async function loadManifest(folder: string, name: string): Promise<TemplateManifest> {
  const json = await readFile(join(folder, 'template.json'), 'utf8').catch((error: NodeJS.ErrnoException) => {
    const reason = error.code === 'ENOENT' ? 'is missing' : `cannot be read: ${error.message}`
    throw new BrokenTemplateError(name, [{ path: 'template.json', reason }])
  })
  const parsed = parseManifest(json)
  if ('manifest' in parsed) return parsed.manifest
  const errors = parsed.errors.map(({ path, reason }) => ({
    path: path === '' ? 'template.json' : `template.json: ${path}`,
    reason,
  }))
  throw new BrokenTemplateError(name, errors)
}

class FileLoader {
  readonly files: TemplateFile[] = []
  sizeBytes = 0
  private readonly declaredVariables: ReadonlySet<string>
  private readonly unmatchedGlobs: Set<string>

  constructor(
    private readonly manifest: TemplateManifest,
    private readonly root: string,
    private readonly errors: FieldError[],
  ) {
    this.declaredVariables = new Set([...BUILT_INS, ...manifest.variables.map((variable) => variable.name)])
    this.unmatchedGlobs = new Set(manifest.verbatim)
  }

  async load(): Promise<void> {
    const entries = await readdir(this.root, { recursive: true, withFileTypes: true }).catch(() => null)
    if (entries === null)
      return this.addError('', 'is missing or not readable: it holds the files of the repository')
    const paths = new Map<string, Dirent>()
    for (const entry of entries) {
      if (entry.isDirectory()) continue
      paths.set(relative(this.root, join(entry.parentPath, entry.name)).split(sep).join('/'), entry)
    }
    if (paths.size === 0) return this.addError('', 'has no files')
    if (paths.size > MAX_FILES) return this.addError('', `has more than ${MAX_FILES} files`)
    for (const path of [...paths.keys()].sort()) {
      if (paths.get(path)?.isFile()) await this.loadFile(path)
      else this.addError(path, 'is a link or a device: only regular files can be deployed')
    }
    for (const glob of this.unmatchedGlobs) {
      this.errors.push({ path: 'template.json: verbatim', reason: `has "${glob}", which matches no file` })
    }
  }

  private async loadFile(path: string): Promise<void> {
    const file = join(this.root, path)
    const { size, mode } = await stat(file)
    if (size > MAX_FILE_BYTES)
      return this.addError(path, `is larger than ${MAX_FILE_BYTES / 1024 / 1024} MiB`)
    const bytes = await readFile(file)
    for (const reason of validateGitFile(path, bytes)) this.addError(path, reason)
    this.sizeBytes += bytes.length
    const content = this.isVerbatim(path) ? bytes : (this.parse(path, bytes) ?? bytes)
    const renderedPath = this.parsePath(path)
    // A path with tags is validated after rendering.
    if (renderedPath === null) for (const reason of validatePath(path)) this.addError(path, reason)
    this.files.push({ path, renderedPath, content, executable: (mode & 0o100) !== 0 })
  }

  private isVerbatim(path: string): boolean {
    const globs = this.manifest.verbatim.filter((glob) => matchesGlob(path, glob))
    for (const glob of globs) this.unmatchedGlobs.delete(glob)
    return globs.length > 0
  }

  /** Null if there is nothing to render: a binary file, or no tags. */
  private parse(path: string, bytes: Buffer): TemplateText | null {
    if (!isUtf8(bytes) || bytes.includes(0) || !bytes.includes(this.manifest.delimiters[0])) return null
    if (bytes.length > MAX_RENDERED_BYTES) {
      this.addError(path, 'has tags but is larger than 1 MiB: list it under "verbatim"')
      return null
    }
    return this.parseText(
      path,
      bytes.toString(),
      '; list the file under "verbatim" or set "delimiters" to keep other braces',
    )
  }

  private parsePath(path: string): TemplateText | null {
    return this.parseText(path, path, ' (in the path)')
  }

  private parseText(path: string, text: string, hint: string): TemplateText | null {
    try {
      return parseTemplateText(text, this.declaredVariables, this.manifest.delimiters)
    } catch (error) {
      this.addError(path, `${error instanceof Error ? error.message : error}${hint}`)
      return null
    }
  }

  private addError(path: string, reason: string): void {
    this.errors.push({ path: path === '' ? 'files/' : `files/${path}:`, reason })
  }
}
