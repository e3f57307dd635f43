import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { ConfigError } from '../config/config.ts'
import { type FieldError, quote } from '../errors.ts'
import type { ContentFile } from '../github/git/commit-pack.ts'
import { CooperativeScheduler } from '../runtime/cooperative-scheduler.ts'
import { BrokenTemplateError, type LoadedTemplate, loadTemplate } from './load-template.ts'
import { renderTemplate, type VariableValue } from './render-template.ts'
import type { Template } from './template.model.ts'
import type { BuiltIns } from './template-manifest.ts'

/** All templates are kept in memory. */
const MAX_TOTAL_BYTES = 256 * 1024 * 1024

/**
 * The templates in TEMPLATES_DIR, read once at start: changes to the folder take effect at the next start.
 */
export class TemplateCatalog {
  private readonly templates: ReadonlyMap<string, LoadedTemplate>

  private constructor(templates: readonly LoadedTemplate[]) {
    this.templates = new Map(templates.map((template) => [template.name, template]))
  }

  /**
   * Each subfolder is a template; files, and folders whose names begin with a dot, are ignored. Rejects
   * with a `BrokenTemplateError` at the first broken template: if it were skipped, only users would
   * notice, who cannot fix it.
   */
  static async load(folder: string): Promise<TemplateCatalog> {
    const templates: LoadedTemplate[] = []
    let totalBytes = 0
    for (const name of await templateNames(folder)) {
      const template = await loadTemplate(join(folder, name), name)
      totalBytes += template.sizeBytes
      if (totalBytes > MAX_TOTAL_BYTES)
        throw new ConfigError(
          'The templates in TEMPLATES_DIR exceed 256 MiB in total. Remove some, or large files in them.',
        )
      templates.push(template)
    }
    return new TemplateCatalog(templates)
  }

  /** Sorted by name. */
  list(): Template[] {
    return [...this.templates.values()].map(({ name, manifest, files }) => ({
      name,
      title: manifest.title,
      description: manifest.description,
      variables: manifest.variables.map(({ pattern: _, ...variable }) => variable),
      fileCount: files.length,
    }))
  }

  /**
   * The files, or all errors, with paths that begin with `input.contents.template`. Files without tags are
   * shared between requests: never change or transfer them. Rejects only with the signal's reason.
   */
  async render(
    name: string,
    variables: readonly VariableValue[],
    builtIns: BuiltIns,
    signal: AbortSignal,
  ): Promise<{ files: ContentFile[] } | { errors: FieldError[] }> {
    const template = this.templates.get(name)
    if (template === undefined) {
      const names = [...this.templates.keys()].join(', ') || 'none'
      const reason = `is ${quote(name)}, which is not a template on this server; available: ${names}`
      return { errors: [{ path: 'input.contents.template.name', reason }] }
    }
    return renderTemplate(template, variables, builtIns, new CooperativeScheduler(signal))
  }
}

async function templateNames(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { withFileTypes: true }).catch((error: NodeJS.ErrnoException) => {
    const reason = error.code === 'ENOENT' ? 'does not exist' : `cannot be read (${error.message})`
    throw new ConfigError(
      `TEMPLATES_DIR is "${folder}", which ${reason}. Set it to a folder of templates, such as ./templates.`,
    )
  })
  const names: string[] = []
  for (const entry of entries) {
    if (entry.name.startsWith('.') || entry.isFile()) continue
    if (!entry.isDirectory()) {
      throw new BrokenTemplateError(entry.name, [
        { path: '', reason: 'is a link: a template must be a folder' },
      ])
    }
    if (!/^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$/.test(entry.name)) {
      throw new BrokenTemplateError(entry.name, [
        { path: '', reason: 'has characters in its name other than A–Z a–z 0–9 . _ -' },
      ])
    }
    names.push(entry.name)
  }
  return names.sort()
}
