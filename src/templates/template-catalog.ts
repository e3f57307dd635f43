import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { ConfigError } from '../config/config.ts'
import type { VariableInput } from '../deployments/deploy-input.ts'
import { type FieldError, quote } from '../errors.ts'
import type { ContentFile } from '../github/git/commit-pack.ts'
import { CooperativeScheduler } from '../runtime/cooperative-scheduler.ts'
import { BrokenTemplateError, type LoadedTemplate, loadTemplate } from './load-template.ts'
import { renderTemplate } from './render-template.ts'
import { type BuiltIns, resolveVariables, type TemplateVariable } from './template-manifest.ts'

/** What a client may know of a template. */
export interface Template {
  name: string
  title: string
  description: string
  variables: Omit<TemplateVariable, 'pattern'>[]
  fileCount: number
}

/** All templates are kept in memory, so there is a limit to all of them together. */
const MAX_TOTAL_BYTES = 256 * 1024 * 1024

/** The templates of TEMPLATES_DIR, read once at start: a change in the folder counts from the next start on. */
export class TemplateCatalog {
  private readonly templates: ReadonlyMap<string, LoadedTemplate>

  private constructor(templates: readonly LoadedTemplate[]) {
    this.templates = new Map(templates.map((template) => [template.name, template]))
  }

  /**
   * Each subfolder is a template; files, and folders whose name begins with a dot, are ignored. Rejects with an error
   * that names the template, the file and the field of all that is wrong with the first broken one: a template that
   * quietly went missing would be noticed by somebody who cannot mend it.
   */
  static async load(folder: string): Promise<TemplateCatalog> {
    const templates: LoadedTemplate[] = []
    let totalBytes = 0
    for (const name of await templateNames(folder)) {
      const template = await loadTemplate(join(folder, name), name)
      totalBytes += template.sizeBytes
      if (totalBytes > MAX_TOTAL_BYTES)
        throw new ConfigError('The templates in TEMPLATES_DIR are more than 256 MiB in all.')
      templates.push(template)
    }
    return new TemplateCatalog(templates)
  }

  /** By name. */
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
   * The files, or all faults, with paths from `input.contents.template` on. Files without tags are the same bytes for
   * everybody: read them, never change or transfer them. Rejects only with the signal's reason.
   */
  async render(
    name: string,
    variables: readonly VariableInput[],
    builtIns: BuiltIns,
    signal: AbortSignal,
  ): Promise<{ files: ContentFile[] } | { faults: FieldError[] }> {
    const template = this.templates.get(name)
    if (template === undefined) {
      const names = [...this.templates.keys()].join(', ') || 'none'
      const reason = `is ${quote(name)}, which is not a template here; there are: ${names}`
      return { faults: [{ path: 'input.contents.template.name', reason }] }
    }
    const resolved = resolveVariables(template, variables, builtIns)
    if (resolved.errors.length > 0) return { faults: resolved.errors }
    return renderTemplate(template, resolved, new CooperativeScheduler(signal))
  }
}

async function templateNames(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { withFileTypes: true }).catch((error: NodeJS.ErrnoException) => {
    const reason = error.code === 'ENOENT' ? 'does not exist' : `cannot be read (${error.message})`
    throw new ConfigError(
      `TEMPLATES_DIR is "${folder}", which ${reason}. Give a folder of templates, such as ./templates.`,
    )
  })
  const names: string[] = []
  for (const entry of entries) {
    if (entry.name.startsWith('.') || entry.isFile()) continue
    if (!entry.isDirectory()) {
      throw new BrokenTemplateError(entry.name, [
        { path: '', reason: 'is a link: a template is a folder of its own' },
      ])
    }
    if (!/^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$/.test(entry.name)) {
      throw new BrokenTemplateError(entry.name, [
        { path: '', reason: 'has a name with other characters than A–Z a–z 0–9 . _ -' },
      ])
    }
    names.push(entry.name)
  }
  return names.sort()
}
