import { isUtf8 } from 'node:buffer'
import type { Dirent } from 'node:fs'
import { readdir, readFile, stat } from 'node:fs/promises'
import { join, relative, sep } from 'node:path'
import { matchesGlob } from 'node:path/posix'
import { MAX_FILE_BYTES, MAX_FILES } from '../deployments/contents/decode-content.ts'
import { validateGitFile } from '../deployments/contents/git-file-rules.ts'
import { validatePath } from '../deployments/contents/path-rules.ts'
import { type FieldError, StartupError } from '../errors.ts'
import { parseTemplateText, type TemplateText } from './render-template.ts'
import { BUILT_INS, readManifest, type TemplateManifest } from './template-manifest.ts'

/** A template as it is kept in memory: all that can be done once is done. */
export interface LoadedTemplate {
  name: string
  manifest: TemplateManifest
  files: readonly TemplateFile[]
  sizeBytes: number
}

export interface TemplateFile {
  /** As in the folder, tags and all. */
  path: string
  renderedPath: TemplateText | null
  /** Bytes are handed out as they are. */
  content: Uint8Array | TemplateText
  executable: boolean
}

/** Names everything that is wrong with one template, file and field. */
export class BrokenTemplateError extends StartupError {
  override readonly name = 'BrokenTemplateError'

  constructor(template: string, faults: readonly FieldError[]) {
    const lines = faults.slice(0, 20).map(({ path, reason }) => `  ${path} ${reason}`)
    if (faults.length > lines.length) lines.push(`  and ${faults.length - lines.length} more`)
    super(
      `The template "${template}" is broken; mend it or take it out of TEMPLATES_DIR:\n${lines.join('\n')}`,
    )
  }
}

/** A text with tags takes many times its size to parse; larger ones have to be verbatim. */
const MAX_RENDERED_BYTES = 1024 * 1024

/** Reads `template.json` and `files/` in `folder`; rejects with `BrokenTemplate`. */
export async function loadTemplate(folder: string, name: string): Promise<LoadedTemplate> {
  const faults: FieldError[] = []
  const manifest = await loadManifest(join(folder, 'template.json'), faults)
  // Without a manifest there is no telling what the files mean.
  if (faults.length > 0) throw new BrokenTemplateError(name, faults)
  const loader = new FileLoader(manifest, join(folder, 'files'), faults)
  await loader.load()
  if (faults.length > 0) throw new BrokenTemplateError(name, faults)
  return { name, manifest, files: loader.files, sizeBytes: loader.sizeBytes }
}

async function loadManifest(file: string, faults: FieldError[]): Promise<TemplateManifest> {
  const found: FieldError[] = []
  const json = await readFile(file, 'utf8').catch((error: NodeJS.ErrnoException) => {
    found.push({ path: '', reason: error.code === 'ENOENT' ? 'is missing' : error.message })
    return '{}'
  })
  if (found.length > 0) {
    faults.push({ path: 'template.json', reason: found[0]?.reason ?? '' })
    return readManifest('{}', [])
  }
  const manifest = readManifest(json, found)
  for (const { path, reason } of found) {
    faults.push({ path: path === '' ? 'template.json' : `template.json: ${path}`, reason })
  }
  return manifest
}

class FileLoader {
  readonly files: TemplateFile[] = []
  sizeBytes = 0
  private readonly manifest: TemplateManifest
  private readonly root: string
  private readonly errors: FieldError[]
  private readonly declaredVariables: ReadonlySet<string>
  private readonly unmatchedGlobs: Set<string>

  constructor(manifest: TemplateManifest, root: string, faults: FieldError[]) {
    this.manifest = manifest
    this.root = root
    this.errors = faults
    this.declaredVariables = new Set([...BUILT_INS, ...manifest.variables.map((variable) => variable.name)])
    this.unmatchedGlobs = new Set(manifest.verbatim)
  }

  async load(): Promise<void> {
    const entries = await readdir(this.root, { recursive: true, withFileTypes: true }).catch(() => null)
    if (entries === null)
      return this.addError('', 'is missing or not readable: it holds what the repository gets')
    const paths = new Map<string, Dirent>()
    for (const entry of entries) {
      if (entry.isDirectory()) continue
      paths.set(relative(this.root, join(entry.parentPath, entry.name)).split(sep).join('/'), entry)
    }
    if (paths.size === 0) return this.addError('', 'has no files')
    if (paths.size > MAX_FILES) return this.addError('', `has more than ${MAX_FILES} files`)
    for (const path of [...paths.keys()].sort()) {
      if (paths.get(path)?.isFile()) await this.loadFile(path)
      else this.addError(path, 'is a link or a device: only files and folders can be deployed')
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
    // A path with tags is checked when it is rendered.
    if (renderedPath === null) for (const reason of validatePath(path)) this.addError(path, reason)
    this.files.push({ path, renderedPath, content, executable: (mode & 0o100) !== 0 })
  }

  private isVerbatim(path: string): boolean {
    const globs = this.manifest.verbatim.filter((glob) => matchesGlob(path, glob))
    for (const glob of globs) this.unmatchedGlobs.delete(glob)
    return globs.length > 0
  }

  /** Null where there is nothing to render: binary, or no tags. */
  private parse(path: string, bytes: Buffer): TemplateText | null {
    if (!isUtf8(bytes) || bytes.includes(0) || !bytes.includes(this.manifest.delimiters[0])) return null
    if (bytes.length > MAX_RENDERED_BYTES) {
      this.addError(path, 'has tags but is larger than 1 MiB: list it under "verbatim"')
      return null
    }
    return this.parseText(
      path,
      bytes.toString(),
      '; "verbatim" and "delimiters" keep braces that are not ours',
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
